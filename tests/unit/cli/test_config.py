"""What is configured, where it is from, and the way back."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Installation


@pytest.fixture
def kept(site: Installation) -> Path:
    return site.site_file.parent / "host.yaml"


def test_what_is_set_shows_with_what_it_hides(roost: Run, kept: Path) -> None:
    kept.write_text("api_port: 9000\nmy_token: abc\n")
    done = roost("config", "show", "--json")
    assert done.exit_code == 0, done.output
    found = {one["name"]: one for one in json.loads(done.output)}
    assert found["api_port"]["value"] == 9000
    assert found["api_port"]["hides"][0]["value"] == 8360
    assert found["my_token"]["value"] == "(hidden)"
    assert set(found) == {"api_port", "my_token"}


def test_nothing_set_is_said_and_all_shows_defaults(roost: Run, kept: Path) -> None:
    kept.unlink(missing_ok=True)
    assert "Nothing is set" in roost("config", "show").output
    assert "nomad_rpc_port" in roost("config", "show", "--all").output
    assert "hidden" not in roost("config", "show", "--origin", "api_port").output


def test_the_inventory_counts(roost: Run, kept: Path) -> None:
    kept.unlink(missing_ok=True)
    name = socket.gethostname()
    document = {"fleet": {"vars": {"monitoring": True}, "hosts": {name: {"api_port": 1}, "other": {"api_port": 2}}}}
    (kept.parent / "inventory.yaml").write_text(yaml.safe_dump(document))
    own = {one["name"]: one["value"] for one in json.loads(roost("config", "show", "--json").output)}
    assert own == {"monitoring": True, "api_port": 1}
    other = json.loads(roost("config", "show", "api_port", "--host", "other", "--json").output)
    assert other[0]["value"] == 2


def test_unknown_and_old_names_are_refused(roost: Run, site: Installation) -> None:
    assert site.site_file.exists()
    assert "There is no variable nonsense" in str(roost("config", "show", "nonsense").exception)
    assert "api_names_custom" in str(roost("config", "show", "api_names").exception)


def test_reset_says_what_counts_then_and_applies_it(roost: Run, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.write_text("api_port: 9000\n")
    called: list[list[str]] = []

    def run(words: list[object], **_: object) -> subprocess.CompletedProcess[str]:
        called.append([str(word) for word in words])
        return subprocess.CompletedProcess([], 0)

    monkeypatch.setattr("roost.cli.fleet_inventory.subprocess.run", run)
    dry = roost("config", "reset", "api_port", "--dry-run")
    assert "9000 goes; 8360 from" in dry.output
    assert not called
    assert roost("config", "reset", "api_port").exit_code == 0
    assert called[0][-2:] == ["--set", "api_port="]
    assert "is not set in" in str(roost("config", "reset", "monitoring").exception)
