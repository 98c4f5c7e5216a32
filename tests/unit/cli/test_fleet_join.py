"""The verbs around joining: what is refused before anything is done, and what a failed set-up leaves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from roost.cli import fleet_join
from roost.cli.fleet_inventory import follow_bootstrap
from roost.fleet.join.token import Token
from roost.ops.errors import RoostError
from roost.ops.site import load_site
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Installation

ENTRY = {"ansible_host": "192.0.2.12", "node_address": "192.0.2.12"}
BEFORE = {"fleet": {"hosts": {"one": {"node_address": "192.0.2.11"}}}}


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the verbs run as root, whoever runs the tests."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def inventory(site: Installation) -> Path:
    path = site.folder / "inventory.yaml"
    path.write_text(yaml.safe_dump(BEFORE))
    return path


def bootstrap(monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
    def run(_site: object, arguments: list[str]) -> Iterator[str]:
        assert arguments == []
        yield "working"
        if fails:
            raise RoostError("The change is not complete.", fix="Run it again.", exit_code=3)

    monkeypatch.setattr(fleet_join, "follow_bootstrap", run)


def test_the_inventory_gains_the_machine(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap(monkeypatch, fails=False)
    lines = list(fleet_join.set_up(load_site(), "two", dict(ENTRY)))
    assert lines == ["working"]
    kept = yaml.safe_load(inventory.read_text())["fleet"]
    assert kept["hosts"]["two"] == ENTRY
    assert list(kept["children"]["fleet_servers"]["hosts"]) == ["one"]
    assert inventory.stat().st_mode & 0o777 == 0o600


def test_a_bad_number_of_servers_is_refused(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap(monkeypatch, fails=False)
    group = {"children": {"fleet_servers": {"hosts": dict.fromkeys(["one", "three"])}}}
    two = {"fleet": {"hosts": {"one": None, "three": None}, **group}}
    inventory.write_text(yaml.safe_dump(two))
    with pytest.raises(RoostError, match="has 2 machines"):
        list(fleet_join.set_up(load_site(), "two", dict(ENTRY)))
    assert yaml.safe_load(inventory.read_text()) == two


def test_there_is_no_token_for_a_server(inventory: Path, roost: Run, site: Installation) -> None:
    """Of 1, 3 or 5 servers one more is never a good number."""
    said = roost("fleet", "token", "--server")
    assert said.exit_code == 2
    assert "No such option" in said.stderr
    assert yaml.safe_load(inventory.read_text()) == BEFORE
    assert not list(site.folder.glob("**/join-tokens*"))


def test_a_failed_set_up_leaves_the_inventory_as_it_was(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap(monkeypatch, fails=True)
    with pytest.raises(RoostError, match="not complete"):
        list(fleet_join.set_up(load_site(), "two", dict(ENTRY)))
    assert yaml.safe_load(inventory.read_text()) == BEFORE


def test_a_failed_set_up_says_what_stays_and_how_it_goes(
    inventory: Path, roost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap(monkeypatch, fails=True)
    with pytest.raises(RoostError) as caught:
        list(fleet_join.set_up(load_site(), "two", dict(ENTRY)))
    for said in ("new token", "./bootstrap.sh --purge on two", "certificate", "SSH key", "Nomad"):
        assert said in caught.value.fix
    assert caught.value.exit_code == 3
    # the fleet's own verb for it is no way: the inventory does not have the machine
    assert "not in the inventory" in str(roost("fleet", "remove", "two").exception)
    assert "fleet remove" not in caught.value.fix
    assert yaml.safe_load(inventory.read_text()) == BEFORE


def test_bootstrap_is_followed_line_by_line(site: Installation) -> None:
    described = json.loads(site.site_file.read_text())
    script = Path(described["install_dir"]) / "current" / "bootstrap.sh"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text('echo "$@"\necho trouble >&2\nexit 3\n')
    lines: list[str] = []
    with pytest.raises(RoostError) as caught:
        lines.extend(follow_bootstrap(load_site(), ["--check"]))
    assert caught.value.exit_code == 3
    script.write_text('echo "$@"\necho trouble >&2\n')
    assert list(follow_bootstrap(load_site(), ["--check"])) == ["--yes --check", "trouble"]


def test_a_machine_set_up_for_itself_does_not_join(roost: Run, site: Installation) -> None:
    assert site.site_file.exists()
    token = str(Token.new(b"authority", 9))
    said = roost("fleet", "join", "192.0.2.11", "--token", token)
    assert "set up on this machine for itself" in str(said.exception)


def test_no_token_is_no_join(roost: Run) -> None:
    assert "no join token" in str(roost("fleet", "join", "192.0.2.11").exception)


def test_a_token_of_a_member_is_refused(roost: Run, site: Installation) -> None:
    described = json.loads(site.site_file.read_text())
    site.site_file.write_text(json.dumps({**described, "fleet": "elsewhere"}))
    assert "set up from elsewhere" in str(roost("fleet", "token").exception)


def test_a_token_is_written_down_as_a_hash_and_is_said_once(
    roost: Run, site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening: list[int] = []
    monkeypatch.setattr(fleet_join, "listen", lambda office: listening.append(office.port))
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/ssh")
    (site.folder / "host.yaml").write_text(
        f"fleet_tls_dir: {site.folder}/tls\nfleet_secrets_dir: {site.folder}/secrets\nfleet_join_port: 4711\n"
    )
    done = roost("fleet", "token", "--json", "--ttl", "60")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert listening == [4711]
    assert 0 < told["expires"] - time.time() <= 60
    kept = (site.folder / "secrets/join-tokens.json").read_text()
    read = Token.read(told["token"])
    assert read.number in kept
    assert read.secret.hex() not in kept
    assert "--join" in roost("fleet", "token").output
