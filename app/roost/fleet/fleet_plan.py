"""Plans of several hosts that are only described: recorded facts in, what would run where out."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from roost.fleet.capacity import capacity_of
from roost.fleet.host_plan import wishes_of, with_shape
from roost.fleet.place import Wish
from roost.fleet.plan import HostCapacity, Placed, Plan
from roost.hosts.bandwidth import Bandwidth
from roost.hosts.facts import HostFacts
from roost.models.catalogue import Catalogue
from roost.models.footprint import HOST
from roost.models.model_slots import ModelSlot, parse_slots
from roost.ops.errors import RoostError
from roost.ops.validation import in_words

BAD_INPUT = 2
MIB = 1 << 20


@dataclass(frozen=True)
class _Document:
    """What is read of a recorded machine; the rest of it is not looked at."""

    facts: HostFacts
    bandwidth: Bandwidth | None = None
    domain: str = ""
    reserved_memory_mib: Annotated[int, Field(ge=0)] = 0


_DOCUMENT: TypeAdapter[_Document] = TypeAdapter(_Document)


def read_hosts(files: Sequence[Path], vendors: Collection[str] | None = None) -> list[HostCapacity]:
    """Return the machines that files describe: outputs of `roost hosts --json`, one or a list of them each.

    Two machines of one name get a number behind it. A document may name its failure domain as `domain`,
    and as `reserved_memory_mib` what other programs there need.

    Raises:
        RoostError: a file is missing, or describes no machine; exit code 2.
    """
    found: list[HostCapacity] = []
    for file in files:
        documents = _read(file)
        for document in documents if isinstance(documents, list) else [documents]:
            host = _host(file, document, vendors)
            same = sum(h.name == host.name or h.name.startswith(f"{host.name}#") for h in found)
            found.append(replace(host, name=f"{host.name}#{same + 1}") if same else host)
    return found


def _read(file: Path) -> object:
    fix = "Name files that hold what `roost hosts --json` prints."
    try:
        return json.loads(file.read_text())
    except OSError as error:
        raise RoostError(f"{file} cannot be read: {error.strerror}.", fix=fix, exit_code=BAD_INPUT) from None
    except ValueError as error:
        raise RoostError(f"{file} is not valid JSON: {error}.", fix=fix, exit_code=BAD_INPUT) from None


def _host(file: Path, document: object, vendors: Collection[str] | None) -> HostCapacity:
    try:
        described = _DOCUMENT.validate_python(document)
    except ValidationError as error:
        raise RoostError(
            f"{file} does not describe a machine: {in_words(error)}.",
            fix="Record it again with `roost hosts --json` of this version.",
            exit_code=BAD_INPUT,
        ) from None
    others = described.reserved_memory_mib
    return capacity_of(
        described.facts, described.bandwidth, domain=described.domain, vendors=vendors, others_mib=others
    )


def changed_slots(slots: Sequence[ModelSlot], changes: Sequence[str]) -> list[ModelSlot]:
    """Return slots with changes `SLOT.FIELD=VALUE`, where VALUE is written as in YAML; a new SLOT is added.

    Raises:
        RoostError: a change is written in another way, or makes no valid slot; exit code 2.
    """
    entries: dict[str, dict[str, Any]] = {slot.slot: slot.model_dump() for slot in slots}
    for change in changes:
        where, equals, value = change.partition("=")
        slot, dot, field = where.partition(".")
        if not equals or not dot:
            raise RoostError(
                f"{change!r} is not SLOT.FIELD=VALUE.",
                fix="Write e.g. main.model=qwen3-8b, or main.context_size=32768.",
                exit_code=BAD_INPUT,
            )
        try:
            entries.setdefault(slot, {"slot": slot})[field] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError:
            raise RoostError(f"{value!r} is no value.", fix="Write it as in YAML.", exit_code=BAD_INPUT) from None
    try:
        return parse_slots(list(entries.values()))
    except RoostError as error:
        raise RoostError(error.message, fix=error.fix, exit_code=BAD_INPUT) from None


def fleet_wishes(
    slots: Sequence[ModelSlot], hosts: Sequence[HostCapacity], catalogue: Catalogue, copies: int = 0
) -> list[Wish]:
    """Return the slots as every host's own, by its tier; or with `copies` so many of each that may run anywhere.

    Raises:
        RoostError: a slot names what there is not.
    """
    if copies and hosts:
        anywhere = wishes_of(slots, hosts[0], catalogue)
        return [replace(wish, host="", copies=copies, optional=False) for wish in anywhere]
    found: list[Wish] = []
    for host in hosts:
        own, optional = with_shape(slots, host.tier)
        found += wishes_of(own, host, catalogue, optional)
    return found


@dataclass(frozen=True)
class DeviceUse:
    """What one device of a host has in the plan, in bytes."""

    host: str
    device: str
    planned: int
    free: int  # that may be planned with


def device_uses(plan: Plan, hosts: Sequence[HostCapacity]) -> list[DeviceUse]:
    """Return what is planned on each device of each host; memory of an integrated processor counts as the machine's."""
    taken: dict[tuple[str, str], int] = {}
    for placed in plan.placed:
        for device in placed.estimate.devices:
            name, _, kind = device.device.rpartition("/")
            key = (name or placed.host, kind)
            taken[key] = taken.get(key, 0) + device.total
    found: list[DeviceUse] = []
    for host in hosts:
        shared = sum(taken.get((host.name, f"GPU{g.index}"), 0) for g in host.gpus if g.integrated)
        found.append(DeviceUse(host.name, HOST, taken.get((host.name, HOST), 0) + shared, host.free_bytes))
        for gpu in host.gpus:
            name = f"GPU{gpu.index}"
            found.append(DeviceUse(host.name, name, taken.get((host.name, name), 0), gpu.free_bytes))
    return found


def differences(before: Plan | None, after: Plan) -> list[str]:
    """Return how a plan differs from what runs, a line a server."""

    def keyed(plan: Plan) -> Mapping[tuple[str, int], Placed]:
        return {(p.slot, p.copy): p for p in plan.placed}

    old, new = keyed(before or Plan(())), keyed(after)
    lines = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was and now and _text(was) != _text(now):
            lines.append(f"{key[0]}: {_text(was)} -> {_text(now)}")
        elif now and not was:
            lines.append(f"{key[0]}: new, {_text(now)}")
        elif was and not now:
            lines.append(f"{key[0]}: gone, was {_text(was)}")
    return lines


def _text(placed: Placed) -> str:
    where = ", ".join(f"GPU{i}: {n} layers" for i, n in zip(placed.split.gpus, placed.split.gpu_layers, strict=True))
    settings = placed.settings
    return (
        f"{placed.model}:{placed.quantisation}, {settings.parallel} x {settings.context_size:,} tokens, "
        f"{where or 'processor'}"
    )
