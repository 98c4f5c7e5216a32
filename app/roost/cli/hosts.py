"""`roost hosts`: what this machine has, and which models it can serve."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from roost.cli.show import print_json, print_table
from roost.hosts.bandwidth import Bandwidth
from roost.hosts.facts import HostFacts
from roost.hosts.gpus import Gpu
from roost.hosts.remembered import keep
from roost.hosts.report import look
from roost.hosts.tiers import Tier
from roost.ops.errors import RoostError
from roost.ops.site import Site, load_site

MIB_PER_GIB = 1024


def hosts(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    measure: Annotated[
        bool, typer.Option("--probe", help="Measure memory bandwidth again: less than a second. As root it is kept.")
    ] = False,
) -> None:
    """Show what this machine has, and which models it can serve.

    Example: roost hosts --probe
    """
    site = _site()
    kept = site.bandwidth_file if site else None
    manifest = site.state_dir / "manifest" if site else None
    paths = [site.state_dir, site.cache_dir] if site else []
    found = look(paths, manifest=manifest, bandwidth_file=kept, measure=measure)
    if measure and kept and found.bandwidth and os.access(kept.parent, os.W_OK):
        keep(kept, found.facts, found.bandwidth)
    if as_json:
        print_json(found.as_dict())
    else:
        print_table(("what", "this machine"), rows(found.facts, found.tier, found.bandwidth))


def _site() -> Site | None:
    try:
        return load_site()
    except RoostError:  # nothing is installed: the verb is of use before that, too
        return None


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
    found += [(f"graphics {place}", _gpu(gpu)) for place, gpu in enumerate(facts.gpus)]  # as a slot's `gpu` names it
    if facts.nvidia.driver:
        found.append(("NVIDIA", f"driver {facts.nvidia.driver}, CUDA up to {facts.nvidia.cuda or 'unknown'}"))
    if facts.nvidia.problem:
        found.append(("NVIDIA", facts.nvidia.problem))
    if facts.rocm:
        found.append(("AMD", "the kernel's compute interface (/dev/kfd) is there"))
    if facts.level_zero:
        found.append(("Intel", "Level Zero is there"))
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
    name = gpu.name if gpu.name.startswith(gpu.vendor) else f"{gpu.vendor} {gpu.name}"
    return f"{name}: {memory}, driver {gpu.driver or 'missing'}{slices}"


def _gib(mib: int) -> str:
    return f"{mib / MIB_PER_GIB:.1f} GiB"
