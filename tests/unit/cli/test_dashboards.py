"""`roost dashboards`: files for those who have a Grafana and a Prometheus of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from roost.cli.dashboards import app, files_of
from roost.fleet.monitoring.rules import Thresholds
from roost.ops.errors import RoostError

RUN = CliRunner()


def test_an_export_is_what_grafana_and_prometheus_read(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["export", "--out", str(tmp_path / "new"), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    written = sorted(
        str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file()
    )
    assert written == said["files"]
    for name in written:
        text = (tmp_path / "new" / name).read_text()
        assert json.loads(text)["panels"] if name.endswith(".json") else yaml.safe_load(text)
    rules = yaml.safe_load((tmp_path / "new/prometheus/rules.yaml").read_text())
    assert rules["groups"][0]["rules"]
    again = RUN.invoke(app, ["export", "--out", str(tmp_path / "new")])
    assert again.output.count("\n") == len(written)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["export", "--out", str(tmp_path / "none"), "--dry-run"])
    assert done.exit_code == 0
    assert "dashboards/roost-fleet.json" in done.output
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = RUN.invoke(app, ["export", "--out", str(tmp_path / "file")])
    assert isinstance(done.exception, RoostError)
    assert "--out" in str(done.exception.fix)


def test_thresholds_and_addresses_reach_the_files() -> None:
    files = files_of("/g", "http://p:9090", "http://a:8360", Thresholds(queue_length=3))
    assert "http://p:9090" in files["provisioning/datasources/roost.yaml"]
    assert "/g" in files["provisioning/dashboards/roost.yaml"]
    assert "> 3" in files["prometheus/rules.yaml"]
    assert "a:8360" in files["prometheus/prometheus.yaml"]


def test_the_list_names_each(capsys: pytest.CaptureFixture[str]) -> None:
    _ = capsys
    done = RUN.invoke(app, ["list", "--json"])
    assert [row["uid"] for row in json.loads(done.output)] == [
        "roost-fleet",
        "roost-models",
        "roost-engines",
        "roost-agents",
    ]
