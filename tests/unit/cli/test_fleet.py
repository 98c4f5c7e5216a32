"""`roost fleet`: who is a server, and an update with its order and how far each machine came."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import Result

from roost.cli.fleet import machines_of
from roost.fleet import inventory
from roost.fleet.rolling.progress import VARIABLE
from roost.fleet.rolling.servers import RaftServer
from roost.ops.errors import RoostError
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Installation

REASON = "The update failed: the model does not answer."


@pytest.fixture
def fleet(site: Installation) -> Installation:
    """An installation with an inventory of three machines in two racks, and a bootstrap.sh that notes its words."""
    document = inventory.alone("one", "192.0.2.11")
    for name in ("two", "three"):
        document = inventory.with_machine(document, name, {"node_address": f"{name}.example"})
    document["fleet"]["hosts"]["one"]["failure_domain"] = "left"
    document["fleet"]["hosts"]["three"]["failure_domain"] = "left"
    inventory.write(site.folder / "inventory.yaml", document)
    (site.folder / "current").mkdir()
    bootstrap(site, 0)
    said = {"state": "restored", "at": "2026-11-26T02:10:00+00:00", "release": "0123", "reason": REASON}
    site.nomad.answers[f"var/{VARIABLE}"] = {"Items": {"one": json.dumps(said)}, "ModifyIndex": 7}
    return site


def bootstrap(site: Installation, code: int) -> None:
    script = f'echo "$@" >> {site.folder}/words\necho a step\nexit {code}\n'
    (site.folder / "current/bootstrap.sh").write_text(script)


def words(site: Installation) -> list[str]:
    path = Path(site.folder / "words")
    return path.read_text().splitlines() if path.exists() else []


def servers(site: Installation) -> list[str]:
    return inventory.servers(inventory.read(site.folder / "inventory.yaml"))


def refuses(done: Result) -> None:
    assert isinstance(done.exception, RoostError)
    assert done.exception.exit_code == 2
    assert "1, 3 or 5" in done.exception.message + done.exception.fix


def test_a_dry_run_says_the_order_and_where_each_machine_stands(fleet: Installation, roost: Run) -> None:
    done = roost("fleet", "update", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["machines"]
    assert [(m["batch"], m["machine"], m["domain"], m["server"]) for m in found] == [
        (1, "one", "left", True), (2, "three", "left", False), (3, "two", "", False),
    ]  # fmt: skip
    assert (found[0]["state"], found[0]["reason"]) == ("restored", REASON)
    assert words(fleet) == []
    shown = roost("fleet", "update", "--dry-run")
    assert REASON in shown.stdout
    assert words(fleet) == ["--yes --check"]


def test_an_update_runs_the_playbook_and_says_how_far_it_came(
    fleet: Installation, roost: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    done = roost("fleet", "update", "--upgrade")
    assert done.exit_code == 0
    assert words(fleet) == ["--yes --upgrade"]
    assert "a step" in capfd.readouterr().out
    bootstrap(fleet, 1)
    failed = roost("fleet", "update", "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["machines"][0]["reason"] == REASON


def test_servers_that_call_themselves_otherwise_are_known_by_address() -> None:
    document = inventory.with_machine(inventory.alone("one", "192.0.2.11"), "six", {"node_address": "2001:db8::6"})
    found = [
        RaftServer(name, f"{name}.global", address, leader=False, voter=True, healthy=True, version="1")
        for name, address in (
            ("gpu-box", "192.0.2.11:4647"), ("gpu-six", "[2001:db8::6]:4647"), ("gone", "192.0.2.9:4647"),
        )
    ]  # fmt: skip
    assert machines_of(found, document) == ["one", "six", "gone"]


def test_servers_are_one_three_or_five(fleet: Installation, roost: Run) -> None:
    refuses(roost("fleet", "servers", "one", "two"))
    assert servers(fleet) == ["one"]
    assert words(fleet) == []
    assert roost("fleet", "servers", "one", "two", "three").exit_code == 0
    assert servers(fleet) == ["one", "two", "three"]
    assert words(fleet) == ["--yes"]


def test_a_server_goes_only_with_a_good_number_left(fleet: Installation, roost: Run) -> None:
    roost("fleet", "servers", "one", "two", "three")
    refuses(roost("fleet", "remove", "three"))
    assert words(fleet) == ["--yes"]
    assert roost("fleet", "remove", "three", "--servers", "one").exit_code == 0
    assert servers(fleet) == ["one"]
    assert words(fleet)[1:] == ["--yes --remove three", "--yes"]


def test_two_servers_are_refused_and_three_at_once_are_not(fleet: Installation, roost: Run) -> None:
    refuses(roost("fleet", "add", "four", "--address", "192.0.2.14", "--servers", "one,four"))
    alone = roost("fleet", "add", "four", "--address", "192.0.2.14", "--server")
    assert (alone.exit_code, "No such option" in alone.stderr) == (2, True), "one more is never a good number"
    assert words(fleet) == []
    chosen = ("--servers", "one,two,four")
    assert roost("fleet", "add", "four", "--address", "192.0.2.14", *chosen).exit_code == 0
    assert servers(fleet) == ["one", "two", "four"]
