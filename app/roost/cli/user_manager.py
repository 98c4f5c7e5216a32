"""The systemd of a user: what it is asked, and what is missing where there is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from roost.ops.errors import RoostError

NO_SYSTEMD = 5
"""Exit code: there is no systemd for users."""
PAM_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
PROPERTIES = ("--property=MainPID", "--property=ActiveState", "--property=SubState")
CRONTAB = (
    "without it have `ROOST_API_KEY=KEY`, and below it `@reboot roost worker`, as lines of the user's crontab "
    "(`crontab -e`), above them `ROOST_API=ADDRESS` where the API is on another machine."
)


@dataclass(frozen=True)
class Machine:
    """What a systemd of users needs of a machine."""

    systemd: bool
    """Whether systemd started the machine."""
    pam: bool
    """Whether logins reach systemd (pam_systemd): else nobody has a systemd of their own, lingering or not."""
    bus: bool
    """Whether there is a D-Bus, by which logins and lingering reach systemd's logind."""
    freebsd: bool = False


@dataclass(frozen=True)
class State:
    """What systemd says of a unit. `main_process` is 0 where none runs."""

    main_process: int
    ended: bool


def missing(machine: Machine) -> tuple[str, str]:
    """Return why no systemd of this user answers, and what to do about it. Pure."""
    if machine.freebsd:
        return (
            "FreeBSD has no systemd; there rc.d runs the worker.",
            "`sudo roost stage ROOT --os freebsd --worker https://API`, on the fleet's first machine, puts it there; "
            + CRONTAB,
        )
    if not machine.systemd:
        return (
            "systemd did not start this machine, so it runs no services of users.",
            f"Have no service here: {CRONTAB}",
        )
    if not machine.pam:
        return (
            "Logins do not reach systemd here (pam_systemd is missing), so no user has a systemd of their own.",
            f"sudo apt-get install libpam-systemd dbus, log in anew and run this again; {CRONTAB}",
        )
    if not machine.bus:
        return (
            "There is no D-Bus here, by which logins reach systemd, so no user has a systemd of their own.",
            f"sudo apt-get install dbus, log in anew and run this again; {CRONTAB}",
        )
    return (
        "There is no systemd here that runs services of this user.",
        f"Log in as that user (not by su), or `sudo loginctl enable-linger NAME`; {CRONTAB}",
    )


def this_machine() -> Machine:
    """Look at this machine."""
    modules = (
        found
        for folder in PAM_FOLDERS
        for pattern in ("security/pam_systemd.so", "*/security/pam_systemd.so")
        for found in Path(folder).glob(pattern)
    )
    return Machine(
        systemd=Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None,
        pam=any(modules),
        bus=Path("/run/dbus/system_bus_socket").exists(),
        freebsd=sys.platform.startswith("freebsd"),
    )


def need_systemd() -> None:
    """Stop where no systemd runs services of users.

    Raises:
        RoostError: with what to do instead.
    """
    if not has_systemd():
        why, fix = missing(this_machine())
        raise RoostError(why, fix=fix, exit_code=NO_SYSTEMD)


def has_systemd() -> bool:
    """Say whether a systemd of this user answers."""
    return bool(systemd_variables())


def systemd_variables() -> dict[str, str]:
    """Return the environment of this user's systemd; {} where there is none, as it is never without variables."""
    try:
        done = _run("show-environment")
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = (line.partition("=") for line in done.stdout.splitlines() if not done.returncode)
    return {name: _unquoted(value) for name, sign, value in pairs if sign}


def _unquoted(value: str) -> str:
    """Return a value as it is: systemd shows one with other than plain letters as $'...' of a shell."""
    if not (value.startswith("$'") and value.endswith("'")):
        return value
    return re.sub(r"\\(.)", r"\1", value[2:-1])


def systemctl(*words: str) -> None:
    """Have this user's systemd do something.

    Raises:
        RoostError: it does not.
    """
    done = _run(*words)
    if done.returncode:
        said = " ".join(done.stderr.split())[:300]
        raise RoostError(f"systemctl --user {' '.join(words)}: {said}", fix="See `journalctl --user -e`.")


def forget(unit: str) -> None:
    """Have this user's systemd list a unit no longer whose file is gone, also where it had failed."""
    systemctl("daemon-reload")
    _run("reset-failed", unit)  # for one that had not failed, and so is unknown by now, it is an error


def asked(*words: str) -> str:
    """Return what this user's systemd answers."""
    return _run(*words).stdout.strip()


def shown(unit: str) -> State:
    """Return what becomes of a unit."""
    pairs = dict(line.partition("=")[::2] for line in asked("show", unit, *PROPERTIES).splitlines())
    process = pairs.get("MainPID", "")
    ended = pairs.get("ActiveState") in {"failed", "inactive"} or pairs.get("SubState") == "auto-restart"
    return State(int(process) if process.isdigit() else 0, ended)


def journal(unit: str) -> str:
    """Return the last lines that a unit's process wrote, as one; empty where this user may not see them."""
    last = ["--lines", "3", "--output", "cat", "--quiet", "_TRANSPORT=stdout"]  # not what systemd says of it
    words = ["journalctl", "--user", "--unit", unit, *last]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " ".join(done.stdout.split())[:300]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    # A shell by su or sudo has not been told where that systemd is.
    where = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return subprocess.run(
        ["systemctl", "--user", *words], env={**os.environ, "XDG_RUNTIME_DIR": where}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
