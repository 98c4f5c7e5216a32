"""An image that was staged: a Debian root that Roost was put into, booted, and its acceptance walked through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hosts import host as hosts
from tests.hosts import roots
from tests.hosts.docker import IMAGE_LABEL, docker
from tests.hosts.host import Host, Kind, lan, running
from tests.support import engine

Measure = Callable[[str, float], None]
PLAIN = replace(roots.SYSTEMD, name="staged-plain", include=(*roots.SYSTEMD.include, "python3"))
BOOTED = replace(PLAIN, name="staged")


@pytest.fixture(scope="module")
def staged(cache: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    """Stage a root on this machine, as its only installation would, and make it an image."""
    root = tmp_path_factory.mktemp("image") / "root"
    root.mkdir()
    subprocess.run(["tar", "-C", str(root), "-xf", str(roots.ensure_tar(PLAIN, cache))], check=True)
    site = tmp_path_factory.mktemp("site") / "site.json"
    engine.model_file()
    site.write_text(json.dumps(site_document(repository, site.parent)))
    stage = [sys.executable, "-m", "roost", "stage", str(root), "--context-size", "2048", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(repository / "app"), "ROOST_SITE": str(site)}
    first = json.loads(subprocess.run(stage, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    assert "copy /opt/roost/engine" in first["changes"]
    again = json.loads(subprocess.run(stage, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    assert again["changes"] == []
    tar = root.parent / "root.tar"
    subprocess.run(["tar", "-C", str(root), "--numeric-owner", "-cf", str(tar), "."], check=True)
    docker("import", "--change", f"LABEL {IMAGE_LABEL}={BOOTED.name}", str(tar), BOOTED.image)
    tar.unlink()
    yield replace(hosts.SYSTEMD, root=BOOTED)
    docker("rmi", BOOTED.image)


def site_document(repository: Path, folder: Path) -> dict[str, object]:
    """What an installation on this machine would say, as far as staging reads it."""
    nothing = str(folder / "none")
    unused = ("nomad_ca", "nomad_cert", "nomad_key", "nomad_token_file", "state_dir", "log_dir", "install_dir")
    return {
        "release": "test", "runtime": "local", "api": "", "web": "", "nomad": "", "agent_job": "",
        "slots": [{"slot": "main", "model": engine.MODEL, "job": "roost-model-main"}],
        "catalogue": str(repository / "group_vars/models.yaml"),
        "models_dir": str(engine.cache_dir() / "test-models"),
        "cache_dir": str(engine.cache_dir()),
        "artifacts_dir": str(engine.cache_dir() / "test-artifacts"),
        "api_key_file": str(folder / "secrets" / "api-key"),
        **dict.fromkeys(unused, nothing),
    }  # fmt: skip


@pytest.fixture(scope="module")
def booted(staged: Kind, cache: Path) -> Iterator[Host]:
    """The image, booted for the first time."""
    with lan("staged", internal=True) as net, running(Host.start(staged, "host-s", lan=net, cache=cache)) as host:
        yield host


def test_the_booted_image_passes_but_for_what_is_not_built(booted: Host, measure: Measure) -> None:
    done = booted.exec("roost-host accept --json", check=False)
    steps = {step["name"]: (step["result"], step["detail"]) for step in json.loads(done.out)}
    wrong = {name: step for name, step in steps.items() if step[0] == "failed"}
    assert not wrong
    assert done.code == (2 if any(result == "missing" for result, _ in steps.values()) else 0)
    assert {name for name, step in steps.items() if step[0] == "ok"} >= {
        "start", "status", "answer", "stop", "pidfiles gone", "rotation",
    }  # fmt: skip
    measure("s: acceptance", done.seconds)


def test_its_services_are_confined_and_run_as_their_users(booted: Host) -> None:
    users = booted.exec("ps -eo user:20,args --no-headers").out
    assert any("llama-server" in line and line.startswith("roost-engine ") for line in users.splitlines()), users
    assert any("roost.cli.serve" in line and line.startswith("roost-agent ") for line in users.splitlines()), users
    for unit in ("roost-model-main", "roost-agent"):
        shown = booted.exec(f"systemd-analyze security --no-pager {unit} | tail -n 1").out
        assert float(shown.split(":")[1].split()[0]) <= 2.0, shown


def test_its_keys_were_made_at_the_first_boot_and_stay(booted: Host) -> None:
    listed = "cd /etc/roost/secrets && stat -c '%n %a %U' * && sha256sum *"
    before = booted.exec(listed).out
    assert "api-key 400 root" in before
    assert "agent-engine-key 400 roost-agent" in before
    assert "engine-key 400 roost-engine" in before
    booted.reboot()
    assert booted.exec(listed).out == before
    hosts.wait_until(
        "the API answers",
        lambda: booted.exec("roost-host accept --json | grep -q Paris", check=False).code == 0,
        60,
    )
