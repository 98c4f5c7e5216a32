"""Two machines: looked at before anything is changed; one is set up alone, the other joins it with a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.fleet import INVENTORY, Fleet, booted
from tests.hosts.host import lan
from tests.hosts.snapshot import compare

Measure = Callable[[str, float], None]
NAMES = ["fleet-1", "fleet-2"]
FOREIGN = "192.0.2.7"
# Faults of the second machine, beside two taken ports: a tier of them by variables, as tests have no such machine.
FAULTS = {
    "preflight_min_memory_mib": 1 << 30,
    "preflight_min_disk_mib": 1 << 30,
    "api_listen_address": FOREIGN,
    "engine": "llama-cpp-python",
}
PORTS = (4646, 8360)


@pytest.fixture(scope="module")
def bare(cache: Path, repository: Path) -> Iterator[Fleet]:
    with lan("join") as net, booted(net, NAMES, cache=cache, repository=repository) as found:
        yield Fleet(net, found, NAMES[:1])


def test_six_faults_are_said_at_once_and_no_machine_is_changed(bare: Fleet) -> None:
    second = bare.hosts["fleet-2"]
    bare.trust()
    second.exec("true")
    before = second.snapshot()
    for port in PORTS:
        second.occupy(port)
    done = bare.deploy(check=False, host_variables={"fleet-2": FAULTS})
    second.exec("pkill -x perl", check=False)
    assert done.code != 0
    for said in ("4646", "8360", "MiB of memory", "MiB are free", FOREIGN, "llama-cpp-python", "7 things"):
        assert said in done.text, f"{said} is not in:\n{done.text}"
    difference = compare(before, second.snapshot())
    assert not difference, str(difference)
    first = bare.controller.exec("ls -d /etc/roost /opt/roost/current /var/lib/roost/nomad 2>/dev/null", check=False)
    assert first.out == ""


def test_preflight_alone_is_harmless(bare: Fleet) -> None:
    bare.trust()
    bare.controller.write(INVENTORY, yaml.safe_dump(bare.inventory(), sort_keys=False))
    release = bare.controller.exec("ls -d /opt/roost/releases/*").out.split()[0]
    python = bare.controller.exec(
        f"sed -n 's/.* exec \\(.*\\/bin\\)\\/python .*/\\1/p' {release}/bin/roost"
    ).out.strip()
    before = {name: host.snapshot() for name, host in bare.hosts.items()}
    done = bare.controller.exec(
        f"cd {release} && PATH={python}:$PATH PYTHONPATH=app PYTHONDONTWRITEBYTECODE=1 ANSIBLE_HOME=/run/ansible "
        f"LC_ALL=C.UTF-8 ansible-playbook -i {INVENTORY} playbook.yaml --tags preflight",
    )
    assert "failed=0" in done.out
    for name, host in bare.hosts.items():
        difference = compare(before[name], host.snapshot())
        assert not difference, f"{name}: {difference}"
