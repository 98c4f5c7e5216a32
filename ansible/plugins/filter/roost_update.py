"""Ansible filters: in which order machines are updated, whether there may be servers as the inventory says, and hashes
of what a machine is to be brought to, which are made where the secrets among it are known already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from roost.fleet.footprint import compare
from roost.fleet.rolling import record
from roost.fleet.rolling.order import batches, handover
from roost.fleet.rolling.servers import choice_problem


def roost_update_order(
    machines: Sequence[str],
    domains: Mapping[str, str],
    servers: Sequence[str],
    at_once: int = 1,
    were: Sequence[str] = (),
) -> list[dict[str, str]]:
    """Return the machines in the order of their update, each with its batch and its group; batches sort by order.

    The group is that of those who go before the first machine (`fleet_order_early`), or `fleet_order`.
    """
    found = batches(list(machines), dict(domains), set(servers), at_once=int(at_once), were=set(were))
    early = handover(list(machines), set(servers), set(were))
    return [
        {"name": name, "group": "fleet_order_early", "batch": f"fleet_early_{number:04}"}
        if name in early
        else {"name": name, "group": "fleet_order", "batch": f"fleet_batch_{number:04}"}
        for number, batch in enumerate(found)
        for name in batch
    ]


def roost_servers_problem(servers: Sequence[str], machines: Sequence[str]) -> str:
    """Return what is wrong with the group of servers, or nothing."""
    return choice_problem(list(servers), list(machines))


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {
            "roost_update_order": roost_update_order,
            "roost_servers_problem": roost_servers_problem,
            "roost_settings_hash": record.hash_of,
            "roost_wish_hash": compare.hash_of,
        }
