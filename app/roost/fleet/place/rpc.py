"""One model over several hosts, when no single one holds it: the engine's RPC backend carries the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from roost.fleet.place.choices import Table
from roost.fleet.place.fits import GB, Room, share
from roost.fleet.place.search import Asked
from roost.fleet.place.wishes import Candidate
from roost.fleet.plan import Placed
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit

RPC_HOSTS = 8  # each adds a network's delay to every token


@dataclass(frozen=True)
class Device:
    """One memory that may hold layers: `place` as in a room, 0 for the machine's own."""

    number: int
    place: int
    free: int
    gbs: float


@dataclass(frozen=True)
class Spread:
    """A server over several hosts, and what it takes of each."""

    placed: Placed
    taken: dict[int, Room]


def devices_of(table: Table, number: int, room: Room) -> list[Device]:
    """Return a host's memories for layers: its graphics processors, or its own where it has none."""
    host = table.sites[number].host
    if not host.gpus:
        return [Device(number, 0, room[0], host.bandwidth_gbs)]
    return [
        Device(number, i, min(room[i], room[0]) if g.integrated else room[i], g.bandwidth_gbs)
        for i, g in enumerate(host.gpus, 1)
        if not g.alone
    ]


def over_hosts(table: Table, asked: Asked, rooms: Sequence[Room]) -> Spread | None:
    """Return the model that a wish names over as few hosts as hold it, or None.

    The first host runs the server and holds what lies on no layer's device; hosts with most memory left come first.
    """
    offers = {n: devices_of(table, n, room) for n, room in enumerate(rooms)}
    names = sorted((n for n in offers if offers[n]), key=lambda n: (-sum(d.free for d in offers[n]), n))
    for candidate in sorted(table.named(asked.wish), key=lambda c: (not c.available, c.rank)):
        for count in range(2, min(RPC_HOSTS, len(names)) + 1):
            found = _over(table, asked, candidate, names[:count], [d for n in names[:count] for d in offers[n]], rooms)
            if found:
                return found
    return None


def _over(
    table: Table, asked: Asked, candidate: Candidate, numbers: Sequence[int], devices: Sequence[Device],
    rooms: Sequence[Room],
) -> Spread | None:  # fmt: skip
    settings = asked.wish.settings(asked.wish.first_context(candidate))
    layers = table.estimates.layers(candidate)
    shared = list(share(layers, [d.free for d in devices]))
    taken: dict[int, Room] = {}
    for _ in range(max(1, layers)):
        needs = table.estimates.needs(candidate, settings, tuple(shared))
        if needs is None:
            return None
        left = [d.free - need for d, need in zip(devices, needs.gpus, strict=True)]
        left[0] -= needs.host if devices[0].place == 0 else 0
        short, wide = min(range(len(left)), key=left.__getitem__), max(range(len(left)), key=left.__getitem__)
        if left[short] >= 0 or left[wide] <= 0 or not shared[short]:
            break
        shared[short] -= 1
        shared[wide] += 1
    else:
        return None
    taken = _taken(table, numbers, devices, needs.gpus, needs.host)
    if any(a < b for n, room in taken.items() for a, b in zip(rooms[n], room, strict=True)):
        return None
    if any(not sum(c for d, c in zip(devices, shared, strict=True) if d.number == n) for n in numbers):
        return None  # a host without a layer is none that was needed
    seconds = sum(w / (d.gbs * GB) for d, w in zip(devices, needs.gpu_read, strict=True) if d.gbs)
    first = table.sites[numbers[0]].host
    by_host = {n: sum(c for d, c in zip(devices, shared, strict=True) if d.number == n) for n in numbers}
    own = [(d, c) for d, c in zip(devices, shared, strict=True) if d.number == numbers[0] and d.place and c]
    placed = Placed(
        slot=asked.wish.slot,
        model=candidate.model,
        quantisation=candidate.quantisation,
        host=first.name,
        settings=settings,
        split=LayerSplit(tuple(first.gpus[d.place - 1].index for d, _ in own), tuple(c for _, c in own)),
        estimate=_estimate(table, devices, needs.estimate),
        reason=f"no single host holds it: {layers} layers over {len(numbers)} hosts, every token crosses the network",
        rpc=tuple((table.sites[n].host.name, by_host[n]) for n in numbers[1:]),
        copy=asked.copy,
        tokens_per_s=round(1 / seconds, 1) if seconds else 0.0,
    )
    return Spread(placed, taken)


def _taken(
    table: Table, numbers: Sequence[int], devices: Sequence[Device], needs: Sequence[int], host: int
) -> dict[int, Room]:
    found = {n: [0] * (1 + len(table.sites[n].host.gpus)) for n in numbers}
    found[numbers[0]][0] += host
    for device, need in zip(devices, needs, strict=True):
        found[device.number][device.place] += need
        if device.place and table.sites[device.number].host.gpus[device.place - 1].integrated:
            found[device.number][0] += need
    return {n: tuple(room) for n, room in found.items()}


def _estimate(table: Table, devices: Sequence[Device], estimate: Estimate) -> Estimate:
    """Name each device by its host; those of the first host as always, its own memory first."""
    first = devices[0].number
    named: list[DeviceBytes] = [estimate.on(HOST)]
    for i, device in enumerate(devices):
        host = table.sites[device.number].host
        name = f"GPU{host.gpus[device.place - 1].index}" if device.place else HOST
        found = estimate.on(f"GPU{i}")
        if device.number == first and name == HOST:
            own = named[0]
            named[0] = DeviceBytes(
                HOST, own.weights + found.weights, own.kv + found.kv, own.compute + found.compute,
                own.output + found.output, own.other + found.other,
            )  # fmt: skip
        else:
            named.append(replace(found, device=name if device.number == first else f"{host.name}/{name}"))
    return Estimate(tuple(named), estimate.origin)


def still_holds(table: Table, placed: Placed, rooms: Sequence[Room]) -> dict[int, Room] | None:
    """Return what a server over several hosts takes of each, if all are there and still hold it."""
    taken: dict[int, list[int]] = {}
    for device in placed.estimate.devices:
        name, _, kind = device.device.rpartition("/")
        number = table.numbers.get(name or placed.host)
        if number is None:
            return None
        host = table.sites[number].host
        here = taken.setdefault(number, [0] * (1 + len(host.gpus)))
        place = next((i for i, g in enumerate(host.gpus, 1) if kind == f"GPU{g.index}"), 0)
        if kind != HOST and not place:
            return None
        here[place] += device.total
        here[0] += device.total if place and host.gpus[place - 1].integrated else 0
    if any(a < b for n, room in taken.items() for a, b in zip(rooms[n], room, strict=True)):
        return None
    return {n: tuple(room) for n, room in taken.items()}
