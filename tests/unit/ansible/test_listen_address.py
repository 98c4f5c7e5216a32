"""A fleet that grew from a machine set up with --listen: its address holds for every machine, and only one has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.ansible.rendering import evaluate

FIRST, SECOND = "192.0.2.11", "192.0.2.12"
PORT = 8443
DECIDED = (
    "{'looked_at': preflight_variables.api_listen_address, 'names': certificates_leaves.api,"
    " 'open': firewall_underlay | map(attribute='ports') | flatten, 'closed': firewall_closed_tcp}"
)


def decided(folder: Path, **variables: object) -> dict[str, Any]:
    """Return what two machines make of variables that are given for both, as those of host.yaml are."""
    hosts = {
        name: {
            "ansible_connection": "local", "ansible_host": address, "hardware_node_address": address,
            "node_address": address, "hardware_host": {"hostname": name, "default_address": address},
        }
        for name, address in {"one": FIRST, "two": SECOND}.items()
    }  # fmt: skip
    return evaluate(folder, ["preflight", "certificates", "firewall"], DECIDED, hosts, **variables)


def test_the_address_of_the_first_machine_is_that_of_no_other(tmp_path: Path) -> None:
    found = decided(tmp_path, api_listen_address=FIRST)
    assert found["one"]["looked_at"] == FIRST
    assert FIRST in found["one"]["names"]
    assert PORT in found["one"]["open"]
    assert PORT not in found["one"]["closed"]
    assert found["two"]["looked_at"] == ""
    assert FIRST not in found["two"]["names"]
    assert SECOND in found["two"]["names"], "a gateway may be placed there later"
    assert PORT not in found["two"]["open"], "nothing answers others there"
    assert PORT in found["two"]["closed"]


@pytest.mark.parametrize(
    ("wanted", "seen"), [("{{ node_address }}", [FIRST, SECOND]), (FIRST, [FIRST, FIRST])], ids=["own", "literal"]
)
def test_where_gateways_may_be_on_each_machine_each_is_asked_for_it(
    tmp_path: Path, wanted: str, seen: list[str]
) -> None:
    found = decided(tmp_path, api_listen_address=wanted, gateway_replicas=1)
    assert [found[name]["looked_at"] for name in ("one", "two")] == seen
    assert all(PORT in machine["open"] for machine in found.values())
