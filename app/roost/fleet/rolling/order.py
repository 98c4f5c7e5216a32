"""In which order the machines of a fleet are updated: one failure domain after the other. Pure.

Where machines stop being servers of Nomad, these go first: see `batches`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def batches(
    machines: Sequence[str],
    domains: Mapping[str, str],
    servers: Collection[str],
    *,
    at_once: int = 1,
    were: Collection[str] = (),
) -> list[list[str]]:
    """Return the machines in the order of their update; those of one batch are changed at the same time.

    `machines` in the order of the inventory; the first one comes first, and its domain with it. `domains` says what
    fails together (a rack, a circuit, a switch); a machine without one is a domain of its own. A domain is finished
    before the next begins, so a fault of the new state never takes two of them. `at_once` machines of a domain may
    change together, servers of Nomad never: a majority of them must stay.

    `were` are the servers so far. Where one of them is to be none (`handover`), it goes before all others, whatever
    its domain: those that stay may begin anew only once nobody counts on its vote any more.
    """
    early = handover(machines, servers, were)
    if early:
        rest = [machine for machine in machines if machine not in early]
        return [[machine] for machine in early] + batches(rest, domains, servers, at_once=at_once)
    order: dict[str, list[str]] = {}
    for machine in machines:
        order.setdefault(_domain(machine, domains), []).append(machine)
    found: list[list[str]] = []
    for members in order.values():
        # The first machine makes what all others run from, so it leads its domain; then servers, then the rest.
        alone = [m for m in members if m in servers or m == machines[0]]
        others = [m for m in members if m not in alone]
        found += [[machine] for machine in alone]
        size = max(1, at_once)
        found += [others[start : start + size] for start in range(0, len(others), size)]
    return found


def handover(machines: Sequence[str], servers: Collection[str], were: Collection[str]) -> list[str]:
    """Return who is changed before the first machine, one by one: servers that come, then those that are to be none.

    Nobody, where none stops being a server. The first machine is never among them: what others run from lies there.
    Whoever comes goes before whoever leaves, so that on the way there are never fewer servers than before and after.
    """
    others = list(machines[1:])
    leaving = [machine for machine in others if machine in were and machine not in servers]
    if not leaving:
        return []
    return [machine for machine in others if machine in servers and machine not in were] + leaving


def _domain(machine: str, domains: Mapping[str, str]) -> str:
    """Return what a machine fails with; a name that no machine can have keeps domains and machines apart."""
    named = domains.get(machine, "")
    return f"domain {named}" if named else f"machine {machine}"
