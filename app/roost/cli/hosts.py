"""`roost hosts`: what this machine has, and which models it can serve."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from roost.cli.show import print_json, print_table
from roost.hosts.bandwidth import Bandwidth, probe
from roost.hosts.collect import collect
from roost.hosts.facts import HostFacts
from roost.hosts.gpus import Gpu
from roost.hosts.tiers import Tier, tier_of
from roost.ops.errors import RoostError
from roost.ops.site import load_site

MIB_PER_GIB = 1024
WITHOUT_SITE = ("/",)


def hosts(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    measure: Annotated[bool, typer.Option("--probe", help="Measure memory bandwidth: about half a second.")] = False,
) -> None:
    """Show what this machine has, and which models it can serve.

    Example: roost hosts --probe
    """
    facts = collect(_paths())
    bandwidth = probe(facts.cpu_cores, facts.cpu.cache_mib, facts.memory_available_mib) if measure else None
    tier = tier_of(facts, bandwidth.gbs if bandwidth else None)
    if as_json:
        found = {"tier": asdict(tier), "bandwidth": asdict(bandwidth) if bandwidth else None}
        print_json({**found, "facts": facts.as_dict()})
    else:
        print_table(("what", "this machine"), rows(facts, tier, bandwidth))


def _paths() -> list[str]:
    try:
        site = load_site()
    except RoostError:  # nothing is installed: the verb is of use before that, too
        return list(WITHOUT_SITE)
    return [str(site.state_dir), str(site.cache_dir)]


def rows(facts: HostFacts, tier: Tier, bandwidth: Bandwidth | None) -> list[tuple[str, str]]:
    """Return what people want to see: one row a thing."""
    cpu = facts.cpu
    quota = f", {cpu.quota:g} by its cgroup" if cpu.quota is not None else ""
    limit = ", the limit of its cgroup" if facts.memory_limit_mib else ""
    cores = f"{facts.cpu_cores} usable{quota}; {cpu.physical_cores} physical"
    found = [
        ("tier", f"{tier.name} ({tier.kind})"),
        ("because", tier.reason),
        ("system", f"{facts.os_name}, kernel {facts.kernel}, {facts.arch}, in: {facts.virtualisation}"),
        ("processor", f"{facts.cpu_model} ({cpu.isa or 'level unknown'})"),
        ("cores", f"{cores}, sockets: {cpu.sockets}, NUMA nodes: {cpu.numa_nodes}"),
        ("memory", f"{_gib(facts.memory_total_mib)}, {_gib(facts.memory_available_mib)} available{limit}"),
    ]
    if bandwidth:
        found.append(("bandwidth", f"{bandwidth.gbs:.1f} GB/s: {bandwidth.measured}"))
    found += [("graphics", _gpu(gpu)) for gpu in facts.gpus]
    if facts.nvidia.driver:
        found.append(("NVIDIA", f"driver {facts.nvidia.driver}, CUDA up to {facts.nvidia.cuda or 'unknown'}"))
    if facts.nvidia.problem:
        found.append(("NVIDIA", facts.nvidia.problem))
    found += [
        ("disk", f"{d.path}: {_gib(d.free_mib)} free of {_gib(d.total_mib)}, {d.kind}, {d.filesystem}")
        for d in facts.disks
    ]
    found += [(f"address {name}", ", ".join(addresses)) for name, addresses in facts.addresses.items()]
    return found


def _gpu(gpu: Gpu) -> str:
    own = _gib(gpu.memory_mib) if gpu.memory_mib else ""
    shared = f"up to {_gib(gpu.shared_mib)} shared" if gpu.integrated and gpu.shared_mib else ""
    slices = ", MIG: " + (" ".join(_gib(s) for s in gpu.slices_mib) or "no slices") if gpu.mig else ""
    memory = " and ".join(part for part in (own, shared) if part) or "memory unknown"
    return f"{gpu.vendor} {gpu.name}: {memory}, driver {gpu.driver or 'missing'}{slices}"


def _gib(mib: int) -> str:
    return f"{mib / MIB_PER_GIB:.1f} GiB"
