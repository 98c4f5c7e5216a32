"""`roost fleet status` and `roost doctor` say which certificates of this machine are near their end."""

from __future__ import annotations

import json

import pytest

from roost.cli.certificates import look_at_certificates
from roost.ops import pki
from roost.ops.pki import LeafSpec, ensure_pki
from roost.ops.site import load_site
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Installation

NODE = LeafSpec("node", ("127.0.0.1",))


@pytest.fixture
def fleet(site: Installation) -> Installation:
    """A fleet of one machine, ready, whose certificates are new."""
    site.nomad.answers |= {
        "nodes": [
            {"ID": "1", "Name": "one", "Status": "ready", "SchedulingEligibility": "eligible", "Version": "1.11.3"}
        ],
        "node/1": {"Attributes": {"unique.network.ip-address": "192.0.2.11"}},
        "operator/raft/configuration": {
            "Servers": [{"Node": "one.global", "Address": "192.0.2.11:4647", "Leader": True, "Voter": True}]
        },
        "agent/members": {"Members": [{"Name": "one.global", "Status": "alive"}]},
        "allocations": [],
    }
    return site


def age(site: Installation, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """Have the node's certificate end in so many days."""
    with monkeypatch.context() as patch:
        patch.setattr(pki, "LEAF_DAYS", days)
        ensure_pki(site.folder / "tls", [NODE], renew=True)


@pytest.mark.usefixtures("fleet")
def test_new_ones_are_not_spoken_of(roost: Run) -> None:
    done = roost("fleet", "status")
    assert done.exit_code == 0, done.output
    assert "one" in done.stdout
    assert "certificate" not in done.stdout
    assert json.loads(roost("fleet", "status", "--json").stdout)["certificates"] == []


def test_one_that_any_run_would_renew_is_named_with_what_to_do(
    fleet: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(fleet, monkeypatch, pki.RENEW_BEFORE_DAYS - 1)
    done = roost("fleet", "status")
    assert done.exit_code == 0, "the machines are ready"
    (said,) = [line for line in done.stdout.splitlines() if "certificate" in line]
    node = fleet.folder / "tls/node.pem"
    assert f"The certificate {node} ends on " in said
    assert "bootstrap.sh" in said
    (finding,) = json.loads(roost("fleet", "status", "--json").stdout)["certificates"]
    assert (finding["id"], finding["severity"]) == (f"certificate:{node}", "warning")
    assert f"certificate:{node}" in roost("doctor", "--json").stdout


def test_what_ends_with_the_authority_is_told_from_what_a_run_renews(
    fleet: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = fleet.folder / "tls"
    assert {path.path.rpartition("/")[2]: path.last for path in look_at_certificates(load_site())} == {
        "ca.pem": True, "cli.pem": False, "node.pem": False,
    }  # fmt: skip
    monkeypatch.setattr(pki, "LEAF_DAYS", pki.CA_DAYS + 1)
    ensure_pki(tls, [NODE], renew=True)
    assert [one.path for one in look_at_certificates(load_site()) if one.last] == [
        str(tls / "ca.pem"), str(tls / "node.pem"),
    ]  # fmt: skip


def test_those_of_a_machine_of_a_fleet_are_looked_at_too(fleet: Installation) -> None:
    tls = fleet.folder / "tls"
    ensure_pki(tls, [LeafSpec("api", ("one",)), LeafSpec("engine", ("one",))])
    # A machine alone may have them of a time when it was not: nothing renews those, nobody uses them.
    assert {"api.pem", "engine.pem"}.isdisjoint(
        one.path.rpartition("/")[2] for one in look_at_certificates(load_site())
    )
    described = json.loads(fleet.site_file.read_text())
    fleet.site_file.write_text(json.dumps(described | {"fleet": "one"}))
    assert {"api.pem", "engine.pem"} <= {one.path.rpartition("/")[2] for one in look_at_certificates(load_site())}


def test_one_that_cannot_be_read_is_named(fleet: Installation, roost: Run) -> None:
    (fleet.folder / "tls/node.pem").write_text("rubbish")
    (found,) = json.loads(roost("fleet", "status", "--json").stdout)["certificates"]
    assert found["severity"] == "error"
    assert "cannot be used" in found["what"]


def test_without_the_authority_nothing_is_said_to_be_the_last(fleet: Installation) -> None:
    (fleet.folder / "tls/ca.pem").unlink()
    authority, *others = look_at_certificates(load_site())
    assert authority.problem
    assert others
    assert not any(one.problem or one.last for one in others)
