"""What a suite does as a user of the host who is not root: with a key of theirs, and the worker as their service."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hosts.docker import Result
from tests.hosts.host import Host, wait_until

MCP_CLIENT = Path(__file__).parents[1] / "hosts" / "mcp_ask.py"
UNIT = "roost-worker.service"
CONNECTED = "Connected; works for "
STARTED = "39f53479d3a045ac8e11786248231fbf"  # what systemd says when a unit was started (sd-messages.h)
COMES_S = 90.0  # it is started anew after 10 s
SESSION_ENDS_S = 60.0
KEY_KNOWN_S = 20.0
PROC = "/mnt"
KEPT = ".local/"  # what the worker itself keeps of its calls, which another `roost worker` goes on with

# As that release's `roost worker install` wrote it.
EARLIER_UNIT = """\
# Written by Roost; changes are lost with its next run.
[Unit]
Description=Runs the tools of Roost's agent in this user's workspaces
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=10
KillMode=control-group
TimeoutStopSec=20
TasksMax=4096
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Environment=PYTHONUNBUFFERED=1
EnvironmentFile={variables}
NoNewPrivileges=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"""


@dataclass(frozen=True)
class Person:
    """A user of a host with systemd, who logs in for each thing they do.

    `key` is theirs for the API, `since` when they came, in seconds of the host's clock since 1970.
    """

    host: Host
    name: str
    key: str
    since: str

    @property
    def home(self) -> str:
        """The home folder."""
        return f"/home/{self.name}"

    def run(self, command: str, *, check: bool = True) -> Result:
        """Log in, run a shell command with the key in its environment, log out."""
        words = f"export ROOST_API_KEY={shlex.quote(self.key)}; {command}"
        return self.host.exec(f"su --login {self.name} --command {shlex.quote(words)}", check=check)

    def logged_out(self) -> None:
        """Wait until no session is left."""
        listed = f"loginctl list-sessions --no-legend | grep -w {self.name}"
        wait_until("the sessions end", lambda: self.host.exec(listed, check=False).code != 0, SESSION_ENDS_S)

    def files(self) -> set[str]:
        """Return what is in the home folder: kind, mode, owner and path of each, without `KEPT`."""
        found = self.host.exec(f"find {self.home} -mindepth 1 -printf '%y %m %u %P\\n'").out.splitlines()
        return {line for line in found if not f"{line.split(' ', 3)[3]}/".startswith(KEPT)}

    def units(self) -> str:
        """Return what the user's systemd knows of the service, loaded or as a file."""
        asked = [f"list-units --all {UNIT}", f"list-unit-files {UNIT}"]
        return self.run("; ".join(f"systemctl --user --no-legend {words}" for words in asked), check=False).out

    def main_pid(self) -> int:
        """Return the process of the service; 0 for none."""
        return int(self.run(f"systemctl --user show --property MainPID --value {UNIT}").out)

    def earlier_service(self, *tools: str) -> None:
        """Have the service run that the first release with `roost worker install` (c8a7da7) would have made."""
        unit, variables = f"{self.home}/.config/systemd/user/{UNIT}", f"{self.home}/.config/roost/worker.env"
        words = " ".join(f"--only {tool}" for tool in tools)
        self.run(f"mkdir -p {unit.rpartition('/')[0]} {variables.rpartition('/')[0]}; umask 077; : >{variables}")
        self.host.write(unit, EARLIER_UNIT.format(command=f"/usr/local/bin/roost worker {words}", variables=variables))
        self.host.write(variables, f'ROOST_API_KEY="{self.key}"\n')
        self.host.exec(f"chown {self.name}: {unit} {variables}")
        self.run(f"systemctl --user daemon-reload && systemctl --user enable {UNIT} && systemctl --user start {UNIT}")
        self.connected(1)
        self.unnamed()

    def unnamed(self) -> None:
        """Have the running worker's lock not say which process has it, as those of releases before 40dd88c did not."""
        self.run("for lock in ~/.local/state/roost/worker/*/lock; do : >$lock; done")

    def starts(self, at_least: int) -> int:
        """Return how often systemd has started the service; waits until the journal has so many."""

        def count() -> int:
            return len(self.journal(f"MESSAGE_ID={STARTED} USER_UNIT={UNIT}").splitlines())

        wait_until(f"the service is started ({at_least})", lambda: count() >= at_least, COMES_S)
        return count()

    def connected(self, times: int) -> None:
        """Wait until the service has connected to the API so many times."""
        said = f"_SYSTEMD_USER_UNIT={UNIT}"
        wait_until(f"the worker connects ({times})", lambda: self.journal(said).count(CONNECTED) >= times, COMES_S)

    def journal(self, matches: str) -> str:
        """Return the messages since the user came that have those fields."""
        return self.host.exec(f"journalctl --quiet --output cat --since @{self.since} {matches}").out

    def results_of(self, request: str, until: str) -> list[dict[str, Any]]:
        """Say something to the agent; return the results of tools, to the first with a word: the turn ends there."""
        stops = shlex.quote(f'/"tool_result".*{until}/q')
        said = self.run(f"roost agent --json {shlex.quote(request)} | sed {stops}").out
        events = [json.loads(line) for line in said.splitlines()]
        return [event for event in events if event["type"] == "tool_result"]

    def tool(self, name: str, **arguments: str) -> str:
        """Call a tool of the agent's as a client of `roost mcp serve`; return what it says."""
        python = self.host.exec("sed -n 's/.* exec \\([^ ]*\\) .*-m roost .*/\\1/p' $(command -v roost)").out.strip()
        words = shlex.join([python, "-", name, json.dumps(arguments)])
        return self.run(f"{words} <<'END'\n{MCP_CLIENT.read_text()}\nEND").out


@contextmanager
def person(host: Host, name: str, *, lingers: bool = False) -> Iterator[Person]:
    """Have somebody with an account and a key, and if wanted services without a session; all that goes at the end."""
    since = host.exec("date +%s.%6N").out.strip()
    host.exec(f"useradd --create-home --shell /bin/sh {name}")
    if lingers:
        host.exec(f"loginctl enable-linger {name}")
    uid = host.exec(f"id -u {name}").out.strip()
    try:
        added = Person(host, name, str(json.loads(host.exec(f"roost keys add {name} --json").out)["key"]), since)
        # Nomad brings it to the gateway, within some seconds.
        known = "roost chat Hello --max-tokens 1"
        wait_until("the gateway knows the key", lambda: added.run(known, check=False).code == 0, KEY_KNOWN_S)
        yield added
    finally:
        host.exec(f"roost keys revoke {name} --purge")
        if lingers:
            host.exec(f"loginctl disable-linger {name} && systemctl stop user@{uid}.service")
        wait_until(
            "the user's processes end", lambda: not host.exec(f"pgrep -U {uid}", check=False).out, SESSION_ENDS_S
        )
        host.exec(f"userdel --remove {name} 2>&1")


@contextmanager
def whole_proc(host: Host) -> Iterator[None]:
    """Show the host a whole /proc, as machines have, which users' namespaces are made of.

    Docker hides parts of its own, where the kernel gives no namespace one, and has /proc/sys read-only.
    """
    host.exec(f"mount -t proc proc {PROC} && mount --bind {PROC}/sys/user /proc/sys/user")
    try:
        yield
    finally:
        host.exec(f"umount /proc/sys/user {PROC}")
