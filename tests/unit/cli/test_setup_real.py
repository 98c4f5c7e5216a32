"""`roost setup` with the real placement, catalogue and estimates; a host of an inventory is asked by real Ansible."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from roost.cli import setup_machine
from roost.hosts.bandwidth import Bandwidth
from roost.hosts.report import Report
from roost.hosts.report import look as look_at_host
from roost.models.catalogue import load_catalogue
from roost.models.estimate.shape import header_of_shape
from roost.ops.errors import RoostError
from tests.support.gguf_files import write_sparse
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import MODEL, Installation

NAME = "box.example"

SHIPPED = Path(__file__).parents[3] / "group_vars/models.yaml"


@pytest.fixture(autouse=True)
def _no_hub(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HTTP_PROXY")
    assert site.folder.exists()


def found(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, (done.output, done.exception)
    return dict(json.loads(done.stdout))


def test_without_a_hub_the_embedded_default_is_proposed(site: Installation, roost: Run) -> None:
    proposal = found(roost("setup", "--dry-run", "--json"))
    main = next(offer for offer in proposal["offers"] if offer["slot"] == "main")
    assert main["model"] == f"{MODEL}:Q4_1"
    assert main["context_size"] == 8192
    assert dict(main["memory"])["CPU"] > main["download"] > 90_000_000
    assert all("no model hub answers" in why for why in proposal["left_out"].values())
    assert f"{MODEL}:Q4_1" not in proposal["left_out"]
    assert not (site.folder / "host.yaml").exists()


def test_what_was_written_is_kept_to_by_the_next_run(site: Installation, roost: Run) -> None:
    first = found(roost("setup", "--yes", "--no-apply", "--json", "--context", "2048"))
    assert first["offers"][0]["context_size"] == 2048
    again = found(roost("setup", "--yes", "--no-apply", "--json"))
    assert (again["diff"], again["written"]) == ("", False)
    text = yaml.safe_load((site.folder / "host.yaml").read_text())
    assert [(s["slot"], s["model"], s["context_size"]) for s in text["model_slots"]] == [("main", MODEL, 2048)]


def test_a_file_of_this_machine_is_proposed(roost: Run, tmp_path: Path) -> None:
    listed = load_catalogue(SHIPPED, custom={}).listed(MODEL)
    file = tmp_path / "mine.Q4_1.gguf"
    write_sparse(header_of_shape(listed.architecture, listed.shape, "Q4_1"), file)
    offers = found(roost("setup", "--dry-run", "--json", "--slot", f"main={file}"))["offers"]
    offer = next(one for one in offers if one["slot"] == "main")  # a larger machine gets a router beside it
    assert (offer["model"], offer["download"], offer["origin"]) == (str(file), 0, "header")
    file.write_bytes(b"no model")
    done = roost("setup", "--dry-run", "--slot", f"main={file}")
    assert isinstance(done.exception, RoostError)
    assert str(file) in done.exception.message


def test_a_context_that_fits_nowhere_is_refused_with_a_remedy(roost: Run) -> None:
    done = roost("setup", "--yes", "--slot", f"main={MODEL}", "--context", "100000000")
    assert isinstance(done.exception, RoostError)
    assert "Nothing was changed" in done.exception.message
    assert done.exception.fix


def test_models_from_hub_no_asks_nobody(site: Installation, roost: Run) -> None:
    (site.folder / "host.yaml").write_text("models_from_hub: no\n")
    proposal = found(roost("setup", "--dry-run", "--json"))
    assert all("models_from_hub is no" in why for why in proposal["left_out"].values())


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Have an inventory with one host, this machine by Ansible's local connection."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"fleet": {"hosts": {NAME: host}}}))
    return folder


def test_a_host_of_an_inventory(roost: Run, inventory: Path) -> None:
    words = ("setup", "--host", NAME, "--inventory", str(inventory))
    done = found(roost(*words, "--yes", "--json", "--context", "1024"))
    file = inventory / "host_vars" / f"{NAME}.yaml"
    assert (done["host"], done["file"], done["written"], done["applied"]) == (NAME, str(file), True, False)
    (slot,) = yaml.safe_load(file.read_text())["model_slots"]
    assert (slot["model"], slot["context_size"]) == (MODEL, 1024)
    kept = file.read_text()
    shown = roost(*words, "--yes")
    assert (shown.exit_code, file.read_text()) == (0, kept)
    assert f"ansible-playbook -i {inventory} playbook.yaml --limit {NAME}" in shown.stdout
    assert roost(*words, "--undo", "--yes").exit_code == 0
    assert not file.exists()


def test_a_host_that_is_not_there_is_named(roost: Run, inventory: Path) -> None:
    done = roost("setup", "--host", "nobody", "--inventory", str(inventory), "--yes")
    assert isinstance(done.exception, RoostError)
    assert "nobody is in" in done.exception.fix
    gone = roost("setup", "--host", NAME, "--inventory", str(inventory / "gone"), "--yes")
    assert isinstance(gone.exception, RoostError)
    assert gone.exception.exit_code == 2


@pytest.mark.parametrize(
    ("there", "file"),
    [("box.yml", "box.yml"), ("box.yaml", "box.yaml"), ("box/x.yaml", "box/roost.yaml"), ("", "box.yaml")],
)
def test_the_file_of_a_host(tmp_path: Path, there: str, file: str) -> None:
    if there:
        path = tmp_path / "host_vars" / there
        path.parent.mkdir(parents=True)
        path.touch()
    assert setup_machine.file_of("box", tmp_path) == tmp_path / "host_vars" / file


def test_a_report_comes_through_ansible() -> None:
    report = look_at_host()
    known = Report(report.facts, report.tier, Bandwidth(20.0, 2, 64, 0.2, "as told"))
    said = f"box | CHANGED => {json.dumps({'stdout': json.dumps(known.as_dict())})}"
    assert setup_machine.report_of(said, "box") == known
    with pytest.raises(RoostError, match="box did not say what it has"):
        setup_machine.report_of("box | UNREACHABLE!", "box")
