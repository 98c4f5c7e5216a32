"""A staged Debian root as a machine of its own: accepted, its clock set, its disk full, rebooted, its power cut.

What a container cannot have: a kernel, PID 1, control groups, a clock and a power cord of its own. The tests build on
each other: each leaves the machine on and its service answering.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from roost.agent.audit.log import AuditLog
from tests.hosts.measured import Measure
from tests.qemu.image import file_system_faults, staged_image
from tests.qemu.machine import Image, Machine
from tests.qemu.service import EXPECT, Service, text_of

UNITS = ("roost-firstboot", "roost-model-main", "roost-agent")
NOT_BUILT = {"create a task", "list queued", "intake by capability", "one tick", "list"}
SECRETS = "cd /etc/roost/secrets && stat -c '%n %a %U' * && sha256sum *"
AUDIT = "/var/lib/roost/agent/audit/audit.jsonl"
SESSIONS = "/roost/v1/sessions"
HOUR_S, DAY_S = 3600, 86400
STORAGE_FULL = 507
FILLER = "/var/lib/roost/filler"
FILL = (
    "n=0; for size in 512M 64M 8M 1M 64K 4K; do "
    f"while fallocate -l $size {FILLER}.$n 2>/dev/null; do n=$((n + 1)); done; n=$((n + 1)); done"
)


@pytest.fixture(scope="module")
def make_image() -> Callable[..., Image]:
    """A root that Roost is staged into."""
    return staged_image


@pytest.fixture(scope="module")
def service(machine: Machine) -> Service:
    """What was staged into it."""
    return Service(machine, "/etc/roost/staged.json")


def processes(machine: Machine) -> str:
    """Return the main processes of the units, and how often they were started again."""
    return machine.exec(f"systemctl show --property Id,MainPID,NRestarts {' '.join(UNITS)}").out


def used(service: Service) -> tuple[int, float]:
    """Return the requests of all days, and the engine's seconds for them."""
    [row] = service.ask("GET", "/v1/usage").document["data"]
    return int(row["requests"]), float(row["engine_seconds"])


def sessions(service: Service) -> dict[str, str]:
    """Return the titles of the conversations by their ids."""
    return {one["id"]: one["title"] for one in service.ask("GET", SESSIONS).document["data"]}


def begin_session(service: Service, title: str) -> str:
    """Begin a conversation; once this returns, no power cut may take it."""
    reply = service.ask("POST", SESSIONS, {"title": title})
    assert reply.status == 201, reply
    return str(reply.document["id"])


def audited(service: Service, tmp_path: Path) -> int:
    """Begin a conversation and remove it, which the audit log has to say; return the entries of a log that holds."""
    assert service.ask("DELETE", f"{SESSIONS}/{begin_session(service, 'to be removed')}").status == 204
    (tmp_path / "audit.jsonl").write_text(service.machine.exec(f"cat {AUDIT}").out)
    verdict = AuditLog(tmp_path).verify()
    assert not verdict.fault, verdict
    return verdict.entries


def errors(machine: Machine) -> list[str]:
    """Return what the agent has logged as errors since the machine was booted.

    All of it: where a journal of a clock that was set begins or ends at some time is not to be relied on.
    """
    said = machine.exec("journalctl -q -b -u roost-agent -o cat").out
    return [line for line in said.splitlines() if re.search(r'"level": "(error|critical)"|Traceback', line)]


def newest_point(service: Service) -> float:
    """Return the time of the newest point of the load, as the page keeps it to ask for what is new."""
    points = service.ask("GET", "/roost/v1/load").document["points"]
    return float(points[-1]["at"])


def news(service: Service, seen: float) -> list[dict[str, float]]:
    """Return the points of the load that are new to a page and were made since the clock was set."""
    clock = float(service.machine.exec("date +%s").out)
    points = service.ask("GET", f"/roost/v1/load?since={seen}").document["points"]
    return [point for point in points if abs(point["at"] - clock) < HOUR_S / 2]


def test_it_has_a_kernel_pid_1_and_control_groups_of_its_own(machine: Machine, service: Service) -> None:
    said = machine.exec(
        "uname -r; systemd-detect-virt; cat /proc/1/comm; stat -fc %T /sys/fs/cgroup; systemctl is-system-running"
    ).out.split()
    assert said[0].endswith("-cloud-amd64")
    assert said[0] != os.uname().release
    assert said[1] in {"kvm", "qemu"}
    assert said[2:] == ["systemd", "cgroup2fs", "running"]
    assert machine.exec(f"systemctl is-active {' '.join(UNITS)}").out.split() == ["active"] * len(UNITS)
    for unit in UNITS[1:]:
        pid = machine.exec(f"systemctl show --property MainPID --value {unit}").out.strip()
        assert machine.exec(f"cat /proc/{pid}/cgroup").out.strip() == f"0::/system.slice/{unit}.service"
        assert pid in machine.exec(f"cat /sys/fs/cgroup/system.slice/{unit}.service/cgroup.procs").out.split()
    service.answers()


def test_it_is_accepted_but_for_what_is_not_built(machine: Machine, service: Service, measure: Measure) -> None:
    timeout_s = 120 * machine.accelerator.patience
    done = machine.exec(f"roost-host accept --json --timeout {timeout_s:.0f}", check=False, timeout_s=360)
    steps = {step["name"]: step for step in json.loads(done.out)}
    assert [step for step in steps.values() if step["result"] == "failed"] == []
    assert {name for name, step in steps.items() if step["result"] == "missing"} == NOT_BUILT
    assert done.code == 2
    measure("qemu: acceptance", done.seconds)
    measure("qemu: answer after it", service.answers())
    paths = service.ask("GET", "/openapi.json").document["paths"]
    assert SESSIONS in paths
    assert [path for path in paths if "task" in path] == [], "the runbook asks for tasks elsewhere"


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S - HOUR_S], ids=["a day forward", "back to an hour ago"])
def test_a_clock_that_is_set_breaks_nothing(machine: Machine, service: Service, jump_s: int, tmp_path: Path) -> None:
    machine.exec("! systemctl is-active systemd-timesyncd")  # nobody sets it right again
    running, said = processes(machine), errors(machine)
    requests, engine_s = used(service)
    kept, seen = begin_session(service, f"before {jump_s}"), newest_point(service)
    entries = audited(service, tmp_path)
    service.begin()
    service.wait(
        "the request is under way",
        lambda: service.ask("GET", "/roost/v1/load").document["now"]["in_flight"] > 0,
    )
    machine.exec(f"date -s @$(($(date +%s) + ({jump_s})))")
    assert EXPECT in text_of(service.end())
    assert service.ask("GET", "/readyz").status == 200
    assert EXPECT in service.answer()
    used_now = used(service)
    assert used_now[0] == requests + 2
    assert 0 < used_now[1] - engine_s < HOUR_S, "a request lasted as long as the clock jumped"
    assert sessions(service)[kept] == f"before {jump_s}"
    assert audited(service, tmp_path) == entries + 1
    service.wait("the load goes on", lambda: bool(news(service, seen)))
    assert max(point["seconds"] for point in news(service, seen)) < HOUR_S
    assert processes(machine) == running
    assert errors(machine) == said


def test_it_starts_anew_with_state_of_the_future(machine: Machine, service: Service, measure: Measure) -> None:
    """Files written before the clock went back are younger than now."""
    requests, _ = used(service)
    kept = sessions(service)
    machine.exec("systemctl restart roost-agent")
    measure("qemu: answer after a restart in the past", service.answers())
    assert used(service)[0] > requests
    assert sessions(service) == kept


def test_a_full_disk_is_said_and_got_over(machine: Machine, service: Service) -> None:
    requests, _ = used(service)
    kept = sessions(service)
    machine.exec(FILL)
    reply = service.ask("POST", SESSIONS, {"title": "there is no room"})
    assert reply.status == STORAGE_FULL, reply
    assert "No space left" in reply.body
    assert EXPECT in service.answer()
    machine.exec(f"rm {FILLER}.*")
    begin_session(service, "there is room")
    service.wait("what was used is written down", lambda: used(service)[0] == requests + 1)
    assert set(sessions(service)) > set(kept)


def test_a_reboot_brings_all_back(machine: Machine, service: Service, measure: Measure) -> None:
    secrets, kept = machine.exec(SECRETS).out, sessions(service)
    requests, _ = used(service)
    measure("qemu: reboot", machine.reboot())
    measure("qemu: answer after a reboot", service.answers())
    assert machine.exec(SECRETS).out == secrets
    assert sessions(service) == kept
    assert used(service)[0] == requests + 1


def test_a_power_cut_takes_nothing_that_was_promised(
    machine: Machine, service: Service, measure: Measure, tmp_path: Path
) -> None:
    """The disk's journal is committed every five minutes, or when somebody asks: what was not brought there is gone."""
    secrets, entries = machine.exec(SECRETS).out, audited(service, tmp_path)
    requests, _ = used(service)
    kept = {begin_session(service, f"number {number}"): f"number {number}" for number in range(3)}
    service.begin()
    machine.cut_power()
    measure("qemu: boot after a power cut", machine.power_on())
    assert re.search("recovery complete|recovering journal", machine.console.read_text(errors="replace"))
    service.answers()
    assert machine.exec(SECRETS).out == secrets
    assert {name: title for name, title in sessions(service).items() if name in kept} == kept
    assert used(service)[0] >= requests + 1
    assert audited(service, tmp_path) == entries + 1


def test_its_file_system_is_in_order_in_the_end(machine: Machine, measure: Measure) -> None:
    measure("qemu: power off", machine.power_off())
    assert file_system_faults(machine.image) == ""
