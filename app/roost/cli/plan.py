"""`roost plan`: which model runs where, why, and what would have to change to fit more."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from roost.cli.show import print_json, print_table
from roost.fleet.artifacts.from_site import release_dir, site_variables
from roost.fleet.capacity import capacity_of
from roost.fleet.figures import Figures, header_figures, host_figures, place_known
from roost.fleet.fleet_plan import (
    BAD_INPUT,
    MIB,
    DeviceUse,
    changed_slots,
    device_uses,
    differences,
    fleet_wishes,
    read_hosts,
)
from roost.fleet.host_plan import FromHub, candidates_of, from_hub_of, reach_of
from roost.fleet.plan import HostCapacity, Placed, Plan
from roost.fleet.plan_file import NAME, read_plan
from roost.hosts.report import look
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.model_slots import ModelSlot, parse_slots
from roost.models.obtainable import Obtainable, Reach
from roost.models.path_slots import with_paths
from roost.models.present import found_models
from roost.ops.errors import NOT_FOUND, RoostError
from roost.ops.site import Site, load_site
from roost.ops.variables import is_on, load_variables

HubChoice = Literal["", "auto", "yes", "no"]


@dataclass(frozen=True)
class Question:
    """What is to be planned: hosts, slots, the catalogue, what of it can be had and needed, what runs now."""

    hosts: list[HostCapacity]
    slots: list[ModelSlot]
    catalogue: Catalogue
    reach: Reach
    figures: Figures
    present: Plan | None = None
    changed: tuple[ModelSlot, ...] = ()  # the slots with what `--what-if` says


def plan(
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Print every decision in words.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    hosts: Annotated[
        list[Path] | None,
        typer.Option("--hosts", metavar="FILE", help="Plan machines recorded with `roost hosts --json`; repeatable."),
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option("--what-if", metavar="SLOT.FIELD=VALUE", help="As if a slot said so; repeatable."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="HOST", help="As if this host had left; repeatable.")
    ] = None,
    anywhere: Annotated[
        int, typer.Option("--anywhere", metavar="N", min=0, help="N servers of each slot, on whichever host.")
    ] = 0,
    from_hub: Annotated[
        str, typer.Option("--from-hub", metavar="auto|yes|no", help="As if models_from_hub said so.")
    ] = "",
) -> None:
    """Show which model runs where, why, and what would have to change to fit more. Changes nothing.

    Ends with 0 when everything is placed, 1 when something is refused, 2 when what was given is not valid.

    Example: roost plan --explain --what-if main.context_size=32768
    """
    if from_hub not in {"", *get_args(FromHub)}:
        raise RoostError(f"--from-hub {from_hub!r} is none of auto, yes, no.", exit_code=BAD_INPUT)
    asked = question(hosts or [], from_hub, what_if or [])
    slots = list(asked.changed)
    before = planned(asked, asked.hosts, asked.slots, anywhere) if hosts and (what_if or without) else asked.present
    left = _without(asked.hosts, without or [])
    found = planned(replace(asked, present=before), left, slots, anywhere)
    uses = device_uses(found, left)
    changes = differences(before, found)
    if as_json:
        print_json({
            "ok": not found.refused,
            "placed": [{**asdict(placed), "origin": placed.estimate.origin} for placed in found.placed],
            "refused": [asdict(refused) for refused in found.refused],
            "explanation": list(found.explanation),
            "devices": [asdict(use) for use in uses],
            "changes": changes,
        })  # fmt: skip
    else:
        _print(found, uses, changes, explain=explain, compared=before is not None)
    raise typer.Exit(1 if found.refused else 0)


def question(files: Sequence[Path], from_hub: str, what_if: Sequence[str] = ()) -> Question:
    """Return what is to be planned: the machines that files describe, or this one.

    Raises:
        RoostError: a file or a variable is not valid.
    """
    try:
        site: Site | None = load_site()
    except RoostError:  # nothing is installed: the verb is of use before that, too
        site = None
    variables = site_variables(site) if site else load_variables(release_dir(), Path(os.devnull))
    catalogue = load_catalogue(site.catalogue if site else release_dir() / "group_vars" / "models.yaml")
    slots = parse_slots(variables["model_slots"])
    changed = tuple(changed_slots(slots, what_if))
    paths = [slot.path for slot in (*slots, *changed) if slot.path]
    try:
        catalogue = with_paths(catalogue, paths, site.models_dir if site else Path(os.devnull))
    except RoostError as error:
        raise RoostError(error.message, fix=error.fix, exit_code=BAD_INPUT) from None
    vendors = gpu_vendors(variables)
    if site and not files:
        found = found_models(catalogue, site.models_dir, present_dirs(variables), dry_run=True)
        catalogue = found.beside(catalogue)
    if files:
        problem = "" if from_hub in {"", "yes"} else f"--from-hub is {from_hub}"
        reach = Reach(hub_problem=problem)
        return Question(read_hosts(files, vendors), slots, catalogue, reach, header_figures(catalogue), None, changed)
    kept = site.bandwidth_file if site else None
    report = look([site.state_dir, site.cache_dir] if site else [], bandwidth_file=kept)
    present = read_plan(site.state_dir / NAME) if site else None
    choice = from_hub_of(from_hub or variables["models_from_hub"])
    nowhere = Path(os.devnull)
    reach = reach_of(
        catalogue,
        models_dir=site.models_dir if site else nowhere,
        cache_dir=site.cache_dir if site else nowhere,
        offline_dir=str(variables["roost_offline_dir"] or ""),
        from_hub=choice,
        mirror=os.environ.get("HF_ENDPOINT", ""),
    )
    running = present.placed if present else ()
    others = reserved_memory_mib(variables)
    host = capacity_of(report.facts, report.bandwidth, running=running, vendors=vendors, others_mib=others)
    names = [gpu.name for gpu in report.facts.gpus]
    figures = host_figures(catalogue, site.models_dir if site else None, site.state_dir if site else None, names)
    return Question([host], slots, catalogue, reach, figures, present, changed)


def present_dirs(variables: Mapping[str, object]) -> list[Path]:
    """Return the folders beside the models folder in which model files may lie."""
    named = variables["models_present_dirs"]
    return [Path(str(folder)) for folder in named] if isinstance(named, list) else []


def gpu_vendors(variables: Mapping[str, object]) -> list[str]:
    """Return whose graphics processors the engine can compute on."""
    packages = variables["engine_gpu_packages"]
    usable = variables["engine"] == "llama.cpp" and isinstance(packages, dict)
    return [str(name) for name in packages if name != "RPC"] if usable and isinstance(packages, dict) else []


def reserved_memory_mib(variables: Mapping[str, object]) -> int:
    """Return how much memory other programs of the machine need: the user's, and Prometheus and SearXNG where they run.

    Raises:
        RoostError: a variable is no whole number.
    """
    beside = [name for name in ("monitoring", "web_search") if is_on(variables[name])]
    return _mib(variables, "reserved_memory_mib") + sum(_mib(variables, f"{name}_memory_mib") for name in beside)


def _mib(variables: Mapping[str, object], name: str) -> int:
    said = str(variables[name])
    try:
        return int(said)
    except ValueError:
        raise RoostError(
            f"{name} is {said!r}, which is no whole number.",
            fix=f"Set {name} to what is needed, in MiB.",
            exit_code=BAD_INPUT,
        ) from None


def _without(hosts: Sequence[HostCapacity], names: Sequence[str]) -> list[HostCapacity]:
    unknown = sorted(set(names) - {host.name for host in hosts})
    if unknown:
        there = ", ".join(host.name for host in hosts)
        raise RoostError(f"There is no host {unknown[0]}.", fix=f"There is {there}.", exit_code=NOT_FOUND)
    return [host for host in hosts if host.name not in names]


def planned(asked: Question, hosts: list[HostCapacity], slots: list[ModelSlot], copies: int = 0) -> Plan:
    """Place slots on hosts.

    Raises:
        RoostError: a slot names what there is not; exit code 2.
    """
    candidates = candidates_of(asked.catalogue, Obtainable(asked.catalogue, asked.reach))
    try:
        wishes = fleet_wishes(slots, hosts, asked.catalogue, copies)
    except RoostError as error:
        raise RoostError(error.message, fix=error.fix, exit_code=BAD_INPUT) from None
    return place_known(hosts, candidates, wishes, asked.figures, asked.present)


def _print(found: Plan, uses: Sequence[DeviceUse], changes: Sequence[str], *, explain: bool, compared: bool) -> None:
    print_table(
        ["host", "slot", "model", "context", "where", "MiB", "known", "tokens/s", "why"],
        [_row(p) for p in found.placed],
    )
    print()
    print_table(
        ["host", "device", "planned MiB", "of MiB"],
        [(use.host, use.device, use.planned // MIB, use.free // MIB) for use in uses],
    )
    for refused in found.refused:
        where = f" on {refused.host}" if refused.host else ""
        print(f"\n{refused.slot}{where}: refused, {refused.reason}.\n  To fit it: {refused.remedy}")
    if compared:
        print("\nAgainst what runs now: " + ("no change." if not changes else ""))
        for change in changes:
            print(f"  {change}")
    if explain:
        print("\nDecisions, in order:")
        for line in found.explanation:
            print(f"  {line}")


def _row(placed: Placed) -> tuple[object, ...]:
    split = placed.split
    where = " ".join(f"GPU{gpu}:{layers}" for gpu, layers in zip(split.gpus, split.gpu_layers, strict=True))
    over = " ".join(f"{host}:{layers}" for host, layers in placed.rpc)
    memory = " ".join(f"{d.device} {d.total // MIB}" for d in placed.estimate.devices if d.total)
    return (
        placed.host,
        f"{placed.slot}#{placed.copy}" if placed.copy else placed.slot,
        f"{placed.model}:{placed.quantisation}",
        f"{placed.settings.parallel} x {placed.settings.context_size}",
        f"{where or 'processor'} {over}".strip(),
        memory,
        placed.estimate.origin,
        round(placed.tokens_per_s),
        placed.reason,
    )
