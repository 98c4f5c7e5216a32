"""What weakens a machine of the fleet: pure, from what was seen to findings with their fix. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from roost.hosts.findings import Finding
from roost.ops import service_names

DAY_S = 86400.0
WARN_DAYS = 60.0
OTHERS, GROUP = 0o007, 0o070
NO_PASSWORD = re.compile(r"\bNOPASSWD\b|!\s*authenticate\b")
# What runs as root although it serves others, and why it has to.
ROOT_FOR = {
    service_names.NOMAD: "a client of Nomad starts tasks as other users",
    service_names.DOCKER: "Docker's daemon is root's",
    service_names.FIREWALL: "it loads rules once and ends",
    service_names.JOIN: "it signs certificates and sets machines up, and listens only while a join token is open",
    service_names.SHARE: "it reads the node's key and what a run made, both root's, and ends minutes after the run",
}
# Programs that are not called what they are, by words of their command.
CALLED = {
    "nomad agent": service_names.NOMAD,
    "-m roost fleet receive": service_names.JOIN,
    "-m roost.fleet.sharing": service_names.SHARE,
}


@dataclass(frozen=True)
class SensitiveFile:
    """A file that holds a secret: its mode, whose it is, who may own it; `sealed` where a passphrase protects it."""

    path: str
    mode: int
    uid: int
    owners: tuple[int, ...] = (0,)
    sealed: bool | None = None  # None: it is needed while the machine runs, so it cannot be


@dataclass(frozen=True)
class Running:
    """A process of ours: its service or job, its command, its user's number."""

    name: str
    command: str
    uid: int


@dataclass(frozen=True)
class Ending:
    """A certificate, and when it ends, in seconds since 1970."""

    path: str
    ends: float


@dataclass(frozen=True)
class Seen:
    """What was looked at. `sudoers` has the texts of sudo's files by path; None: this user may not look."""

    files: Sequence[SensitiveFile] = ()
    processes: Sequence[Running] = ()
    sudoers: Mapping[str, str] | None = None
    certificates: Sequence[Ending] = ()
    open_tokens: int = 0  # with which machines may join now
    firewall: bool | None = None
    management_tokens: int | None = None  # of Nomad
    weak_login: Sequence[str] = ()  # settings of the SSH server that let passwords of root in
    now: float = 0.0


def service_name(process: str, command: str) -> str:
    """Return what a process is known by: its service, else its program's name."""
    return next((name for words, name in CALLED.items() if words in command), process)


def audit(seen: Seen) -> list[Finding]:
    """Return everything that weakens the machine, the worst first."""
    found = [
        *_files(seen),
        *_processes(seen),
        *_sudo(seen),
        *_certificates(seen),
        *_doors(seen),
    ]
    order = ("error", "warning", "info")
    return sorted(found, key=lambda f: order.index(f.severity))


def _files(seen: Seen) -> Iterator[Finding]:
    for file in seen.files:
        if file.mode & (OTHERS | GROUP):
            who = "everybody" if file.mode & OTHERS else "a group"
            yield Finding(
                f"readable:{file.path}", "error", f"{file.path} has mode {file.mode:04o}: {who} may get at it.",
                "It holds a secret of the fleet.", f"chmod go= {file.path}; and make the secret anew if it was read.",
            )  # fmt: skip
        if file.uid not in file.owners:
            yield Finding(
                f"owner:{file.path}", "error", f"{file.path} belongs to user {file.uid}.",
                "Its owner can read and replace it.", f"chown root {file.path}",
            )  # fmt: skip
        if file.sealed is False:
            yield Finding(
                f"unsealed:{file.path}", "info", f"{file.path} lies readable for root.",
                "Who gets a copy of the disk, or a backup of it, has the fleet.",
                "`roost security seal` encrypts it under a passphrase; runs then ask for that.",
            )  # fmt: skip


def _processes(seen: Seen) -> Iterator[Finding]:
    for process in seen.processes:
        if process.uid != 0:
            continue
        why = ROOT_FOR.get(process.name)
        if why:
            yield Finding(
                f"root:{process.name}", "info", f"{process.name} runs as root.", f"It has to: {why}.", "Nothing to do."
            )
        else:
            yield Finding(
                f"root:{process.name}", "error", f"{process.name} runs as root: {process.command[:80]}",
                "Whoever breaks into it has the machine.", "Run ./bootstrap.sh; each part has a user of its own.",
            )  # fmt: skip


def _sudo(seen: Seen) -> Iterator[Finding]:
    for path, text in (seen.sudoers or {}).items():
        for number, line in enumerate(text.splitlines(), 1):
            if not line.lstrip().startswith("#") and NO_PASSWORD.search(line):
                yield Finding(
                    f"sudo:{path}:{number}", "warning",
                    f"{path}, line {number} gives root without a password: {line.strip()}",
                    "Whoever gets into that account has the machine.",
                    f"Take it out with `visudo -f {path}`; Roost needs no such line.",
                )  # fmt: skip


def _certificates(seen: Seen) -> Iterator[Finding]:
    for certificate in seen.certificates:
        days = (certificate.ends - seen.now) / DAY_S
        if days < WARN_DAYS:
            when = f"ended {-days:.0f} days ago" if days <= 0 else f"ends {days:.0f} days from now"
            yield Finding(
                f"certificate:{certificate.path}", "error" if days <= 0 else "warning",
                f"{certificate.path} {when}.",
                "Connections are refused after that.", "Run ./bootstrap.sh on the machine the fleet is set up from.",
            )  # fmt: skip


def _doors(seen: Seen) -> Iterator[Finding]:
    if seen.firewall is False:
        yield Finding(
            "firewall", "error", "The firewall rules of Roost are not loaded.",
            "Nomad's ports for servers and gossip answer everybody.", "Run ./bootstrap.sh again.",
        )  # fmt: skip
    if seen.open_tokens:
        yield Finding(
            "join-token", "info", f"{seen.open_tokens} join tokens are open.", "Whoever has one may join the fleet.",
            "They end by themselves, within minutes.",
        )  # fmt: skip
    if seen.management_tokens is not None and seen.management_tokens > 1:
        yield Finding(
            "nomad-management", "warning", f"Nomad has {seen.management_tokens} tokens that may do everything.",
            "One is enough, and is kept by root.",
            "Give people a role's (roost fleet access add), and end theirs: nomad acl token delete.",
        )  # fmt: skip
    for setting in seen.weak_login:
        yield Finding(
            f"ssh:{setting.split()[0]}", "warning", f"The SSH server has `{setting}`.",
            "Root's password can be guessed over the network.", "Use keys: PermitRootLogin prohibit-password.",
        )  # fmt: skip
