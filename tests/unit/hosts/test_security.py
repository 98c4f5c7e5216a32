"""What weakens a machine, from what was seen."""

from __future__ import annotations

import pytest

from roost.hosts.security import Ending, Running, Seen, SensitiveFile, audit, service_name

DAY_S = 86400.0
SECRET = "/etc/roost/secrets/api-key"


def ids(seen: Seen) -> list[str]:
    return [f"{found.severity} {found.id}" for found in audit(seen)]


def test_a_machine_as_it_should_be_has_no_findings() -> None:
    seen = Seen(
        files=[SensitiveFile(SECRET, 0o600, 0), SensitiveFile("/x/ca-key.pem", 0o600, 0, sealed=True)],
        processes=[Running("llama-server", "llama-server", 8362)],
        sudoers={"/etc/sudoers": "# %wheel ALL=(ALL) NOPASSWD: ALL\n%sudo ALL=(ALL:ALL) ALL\n"},
        certificates=[Ending("/x/node.pem", 100 * DAY_S)],
        firewall=True,
        management_tokens=1,
    )
    assert audit(seen) == []


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (Seen(files=[SensitiveFile(SECRET, 0o644, 0)]), f"error readable:{SECRET}"),
        (Seen(files=[SensitiveFile(SECRET, 0o640, 0)]), f"error readable:{SECRET}"),
        (Seen(files=[SensitiveFile(SECRET, 0o600, 1000)]), f"error owner:{SECRET}"),
        (Seen(files=[SensitiveFile("/k", 0o600, 0, sealed=False)]), "info unsealed:/k"),
        (Seen(processes=[Running("llama-server", "llama-server", 0)]), "error root:llama-server"),
        (Seen(processes=[Running("roost-nomad", "nomad agent", 0)]), "info root:roost-nomad"),
        (Seen(sudoers={"/etc/sudoers.d/a": "\nalice ALL=(ALL) NOPASSWD: ALL"}), "warning sudo:/etc/sudoers.d/a:2"),
        (Seen(sudoers={"/etc/sudoers": "Defaults !authenticate"}), "warning sudo:/etc/sudoers:1"),
        (Seen(certificates=[Ending("/c", 10 * DAY_S)]), "warning certificate:/c"),
        (Seen(certificates=[Ending("/c", 10.0)], now=20.0), "error certificate:/c"),
        (Seen(open_tokens=2), "info join-token"),
        (Seen(firewall=False), "error firewall"),
        (Seen(management_tokens=2), "warning nomad-management"),
        (Seen(weak_login=["PermitRootLogin yes"]), "warning ssh:PermitRootLogin"),
    ],
)
def test_each_weakness(seen: Seen, found: str) -> None:
    assert ids(seen) == [found]


@pytest.mark.parametrize(
    ("process", "command", "name"),
    [
        ("nomad", "/opt/roost/bin/nomad agent -config /etc/roost/nomad.d", "roost-nomad"),
        ("python3.11", "/opt/roost/venvs/x/bin/python3.11 -P -m roost fleet receive", "roost-join"),
        ("python", "/opt/roost/venvs/x/bin/python -P -m roost.fleet.sharing --address 192.0.2.11", "roost-share"),
        ("python3.11", "python3.11 -P -m roost worker", "python3.11"),
        ("llama-server", "llama-server --port 1", "llama-server"),
    ],
)
def test_a_process_is_known_by_its_service(process: str, command: str, name: str) -> None:
    assert service_name(process, command) == name


@pytest.mark.parametrize(("words", "name"), [("roost fleet receive", "join"), ("roost.fleet.sharing", "share")])
def test_what_listens_for_a_while_is_root_for_a_reason(words: str, name: str) -> None:
    """An audit after a run, or while a join token is open, finds no error in them."""
    called = service_name("python3", f"python3 -P -m {words}")
    assert ids(Seen(processes=[Running(called, "", 0)])) == [f"info root:roost-{name}"]


def test_an_engine_may_own_its_key() -> None:
    key = SensitiveFile("/k", 0o400, 8362, owners=(0, 8362))
    assert audit(Seen(files=[key])) == []


def test_the_worst_comes_first() -> None:
    seen = Seen(open_tokens=1, firewall=False, weak_login=["PermitRootLogin yes"])
    assert [found.split()[0] for found in ids(seen)] == ["error", "warning", "info"]
