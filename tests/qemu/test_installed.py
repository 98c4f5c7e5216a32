"""A machine that bootstrap.sh set up, with Nomad, as a virtual one: its clock set, rebooted, its power cut.

The tests build on each other: each leaves the machine on and its service answering.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.hosts.host import find_pids
from tests.hosts.measured import Measure
from tests.qemu.image import file_system_faults, installed_image
from tests.qemu.machine import TCG, Image, Machine
from tests.qemu.service import ASK_S, Service

HOUR_S, DAY_S = 3600, 86400
NOMAD = (
    "NOMAD_ADDR=https://127.0.0.1:4646 NOMAD_CACERT=/etc/roost/tls/ca.pem NOMAD_CLIENT_CERT=/etc/roost/tls/cli.pem "
    "NOMAD_CLIENT_KEY=/etc/roost/tls/cli-key.pem NOMAD_TOKEN=$(cat /etc/roost/secrets/nomad-operator-token) "
    "/opt/roost/bin/nomad"
)
OURS = {"nomad", "model-server", "agent"}


@pytest.fixture(scope="module")
def make_image() -> Callable[..., Image]:
    """What bootstrap.sh left on a disk."""
    return installed_image


@pytest.fixture(scope="module")
def service(machine: Machine) -> Service:
    """What was installed on it."""
    return Service(machine, "/etc/roost/site.json")


def processes(machine: Machine) -> dict[str, int]:
    """Return the processes of Roost by name."""
    return find_pids(machine.exec("ps -eo pid,ppid,args --no-headers").out)


def node(machine: Machine) -> str:
    """Return what Nomad says of this machine; empty while it says nothing."""
    done = machine.exec(f"{NOMAD} node status -json", check=False)
    return "".join(one["Status"] for one in json.loads(done.out)) if done.code == 0 else ""


def healthy(service: Service) -> float:
    """Wait until Nomad calls the machine ready and the model answers; return the seconds it took."""
    limit_s = 2 * ASK_S  # Nomad begins lost jobs anew at its own pace
    return service.wait("Nomad's node is ready", lambda: node(service.machine) == "ready", limit_s) + service.answers()


def set_clock(machine: Machine, by_s: int) -> None:
    machine.exec(f"date -s @$(($(date +%s) + ({by_s})))")


def test_all_of_it_starts_with_a_kernel_and_control_groups_of_its_own(service: Service, measure: Measure) -> None:
    machine = service.machine
    assert machine.exec("cat /proc/1/comm; stat -fc %T /sys/fs/cgroup").out.split() == ["systemd", "cgroup2fs"]
    measure("qemu: an installed machine's first answer", service.answers())
    healthy(service)
    running = processes(machine)
    assert set(running) >= OURS
    for name in ("model-server", "agent"):
        assert "nomad.slice" in machine.exec(f"cat /proc/{running[name]}/cgroup").out, "Nomad's own control group"


@pytest.mark.parametrize(
    ("jump_s", "stays"),
    [(DAY_S, True), (-DAY_S - 2 * HOUR_S, False), (2 * HOUR_S, True)],
    ids=["a day forward", "back to two hours ago", "right again"],
)
def test_a_clock_that_is_set_is_got_over(service: Service, jump_s: int, *, stays: bool, measure: Measure) -> None:
    """Forward nothing ends but Nomad. Back, what Nomad signed is of the future: it begins its jobs anew by itself."""
    machine = service.machine
    running = processes(machine)
    set_clock(machine, jump_s)
    service.wait("Nomad begins anew", lambda: processes(machine).get("nomad", running["nomad"]) != running["nomad"])
    measure(f"qemu: Nomad ready and an answer after a clock set by {jump_s / HOUR_S:.0f} h", healthy(service))
    # Where the processor is emulated, Nomad may take longer to begin anew than its servers wait for the machine.
    if stays and machine.accelerator is not TCG:
        assert processes(machine) | {"nomad": 0} == running | {"nomad": 0}
    # What is killed comes back whatever the clock says.
    before = processes(machine)["model-server"]
    machine.exec(f"kill -9 {before}")
    service.wait("another model server", lambda: processes(machine).get("model-server", before) != before)
    service.answers()


def test_a_reboot_brings_all_back(service: Service, measure: Measure) -> None:
    machine = service.machine
    measure("qemu: an installed machine's reboot", machine.reboot())
    measure("qemu: answer after that", service.answers())
    healthy(service)
    assert set(processes(machine)) >= OURS


def test_a_power_cut_leaves_nomad_s_state_and_the_service_whole(service: Service, measure: Measure) -> None:
    machine = service.machine
    service.begin()
    machine.cut_power()
    measure("qemu: an installed machine's boot after a power cut", machine.power_on())
    measure("qemu: answer after that power cut", service.answers())
    healthy(service)
    assert set(processes(machine)) >= OURS


def test_its_file_system_is_in_order_in_the_end(machine: Machine) -> None:
    machine.power_off()
    assert file_system_faults(machine.image) == ""
