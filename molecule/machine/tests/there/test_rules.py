"""The firewall while its rules are exchanged, where new ones cannot be loaded, and while a machine boots."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import testinfra
from testinfra.host import Host
from tests.hosts.scenario import Scenario

CLOSED = 8092
RULES = "/etc/roost/firewall.nft"
UNIT = "roost-firewall.service"
TIMES = 30
COUNT = f"""
import socket, threading
from roost.ops.services import begin_anew

open_port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
open_port.bind(("0.0.0.0", {CLOSED}))
came = threading.Event()
threading.Thread(target=lambda: (open_port.recv(16), came.set()), daemon=True).start()
"""
EXCHANGE = f"""
for _ in range({TIMES}):
    begin_anew("roost-firewall")
print("came" if came.is_set() else "none")
"""
WITHOUT = """
import subprocess
subprocess.run(["nft", "delete", "table", "inet", "roost"], check=True)
print("came" if came.wait(30) else "none")
begin_anew("roost-firewall")
"""
FLOOD = """
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    sender.sendto(b"x", ("%s", %d))
"""


@pytest.fixture(scope="module")
def machine() -> Host:
    return testinfra.get_host("docker://machine-1")


@pytest.fixture
def flooded() -> Iterator[None]:
    """A stranger sends to the closed port all the time."""
    stranger = testinfra.get_host("docker://stranger-1")
    program = FLOOD % (Scenario(os.environ).address("machine-1"), CLOSED)
    begun = stranger.check_output(f"setsid python3 - >/dev/null 2>&1 <<'EOF' & echo $!\n{program}EOF")
    yield
    stranger.check_output(f"kill {begun}")


def roost(machine: Host, program: str) -> str:
    """Run a program with Roost's own Python and modules, as its Ansible modules do."""
    found = "sed -n 's/^\\(PYTHONPATH=.*\\) exec \\(.*\\) -m roost .*/\\1 \\2/p' /opt/roost/current/bin/roost"
    python = machine.check_output(found)
    return str(machine.check_output(f"{python} - <<'EOF'\n{program}EOF"))


@pytest.mark.usefixtures("flooded")
def test_nothing_gets_through_while_rules_are_exchanged(machine: Host) -> None:
    assert roost(machine, COUNT + EXCHANGE) == "none"
    assert roost(machine, COUNT + WITHOUT) == "came", "nothing comes without the rules either, so this shows nothing"
    machine.check_output("nft list table inet roost")


def test_rules_that_cannot_be_loaded_leave_those_before_and_say_why(machine: Host) -> None:
    before = machine.check_output("nft --stateless list table inet roost")
    machine.check_output(f"cp -p {RULES} /root/firewall.nft && echo 'table inet roost {{ nonsense' >>{RULES}")
    try:
        said = roost(
            machine,
            "from roost.ops.errors import RoostError\nfrom roost.ops.services import begin_anew\n"
            "try:\n    begin_anew('roost-firewall')\nexcept RoostError as error:\n    print(error)\n",
        )
        assert RULES in said
        assert "syntax error" in said
        assert machine.check_output("nft --stateless list table inet roost") == before
    finally:
        machine.check_output(f"mv /root/firewall.nft {RULES} && systemctl reload {UNIT}")


def test_no_port_is_open_at_boot_before_the_rules_are_there(machine: Host) -> None:
    for later in ("docker.service", "network-pre.target"):
        assert UNIT in machine.check_output(f"systemctl show --property=After --value {later}").split(), later
    assert "ordering cycle" not in machine.check_output("journalctl --boot --output cat")
    assert machine.service(UNIT).is_running
