"""An image that was staged: a Debian root that Roost was put into, booted, and its acceptance walked through."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.hosts import host as hosts
from tests.hosts import roots
from tests.hosts.docker import IMAGE_LABEL, docker
from tests.hosts.host import Host, Kind, lan, running
from tests.hosts.staging import staged_root

Measure = Callable[[str, float], None]
PLAIN = replace(roots.SYSTEMD, name="staged-plain", include=(*roots.SYSTEMD.include, "python3"))
BOOTED = replace(PLAIN, name="staged")


@pytest.fixture(scope="module")
def staged(cache: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    """Stage a root on this machine, as its only installation would, and make it an image."""
    root = staged_root(PLAIN, tmp_path_factory.mktemp("image"), cache=cache, repository=repository)
    tar = root.parent / "root.tar"
    subprocess.run(["tar", "-C", str(root), "--numeric-owner", "-cf", str(tar), "."], check=True)
    docker("import", "--change", f"LABEL {IMAGE_LABEL}={BOOTED.name}", str(tar), BOOTED.image)
    tar.unlink()
    yield replace(hosts.SYSTEMD, root=BOOTED)
    docker("rmi", BOOTED.image)


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
    assert done.code == 2
    assert {name for name, step in steps.items() if step[0] == "missing"} == {
        "create a task", "list queued", "intake by capability", "one tick", "list",
    }  # fmt: skip
    measure("s: acceptance", done.seconds)


def test_what_it_calls_missing_is_missing(booted: Host) -> None:
    """No route of the booted service is about tasks, under whatever name: the runbook asks for the right one."""
    staged = json.loads(booted.exec("cat /etc/roost/staged.json").out)
    program = (
        "import sys, urllib.request as web\n"
        "key = open(sys.argv[2]).read().strip()\n"
        "print(web.urlopen(web.Request(sys.argv[1], headers={'x-api-key': key})).read().decode())\n"
    )
    command = f"python3 - {staged['api']}/openapi.json {staged['api_key']}"
    # The acceptance has just begun the services anew.
    ask = partial(booted.exec, command, stdin=program.encode(), check=False)
    hosts.wait_until("the API answers", lambda: ask().code == 0, 60)
    paths = json.loads(ask().out)["paths"]
    assert "/roost/v1/sessions" in paths
    assert [path for path in paths if "task" in path] == []


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
