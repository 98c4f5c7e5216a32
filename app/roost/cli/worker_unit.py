"""`roost worker install|uninstall|status`: the worker as a service of its user, by the user's own systemd."""

from __future__ import annotations

import getpass
import os
import shutil
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import roost
from roost.cli.principal import PRIVATE, identify, refuse_root, settings_folder, state_folder
from roost.cli.show import print_json
from roost.cli.user_manager import (
    asked,
    forget,
    has_systemd,
    journal,
    need_systemd,
    shown,
    systemctl,
    systemd_variables,
)
from roost.cli.worker_lock import holder, named, runs_already
from roost.cli.worker_service import STAYS_DOWN
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.units import Service, render_systemd

NAME = "roost-worker"
OURS = "# Written by Roost"
ROOT = "A worker does not run as root, and no service of root's runs one."
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
PASSED = (
    "ROOST_API", "ROOST_API_KEY", "SSL_CERT_FILE", "ROOST_SEARXNG_URL", "ROOST_BRAVE_KEY",
    *(name for name in PRIVATE if name != "XDG_RUNTIME_DIR"),  # a session's own: systemd gives the service its one
    *PROXIES, *(name.lower() for name in PROXIES),
)  # fmt: skip
"""Variables that the service needs as they are now: also where workspaces and known hubs are, and the way to them."""
BEGINS_S = 30.0
"""How long a worker may take until it has begun; Python alone takes seconds on a slow machine."""
ASKED_EACH_S = 0.2

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")]


def install(
    *,
    only: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="Offer only this tool; may be given several times.")
    ] = None,
    allow_network: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="Private addresses that pages may be fetched from.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have your systemd run the worker, now and whenever you are logged in.

    The key, the address, proxies and XDG folders that are set now are kept in ~/.config/roost/worker.env, which only
    you may read. Run it again to change them.

    Example: roost worker install
    """
    refuse_root(ROOT)
    text = render_systemd(service(only or [], allow_network or []))
    variables = environment_text({name: value for name in PASSED if (value := os.environ.get(name))})
    if dry_run:
        print_json({"unit": str(unit_file()), "text": text}) if as_json else print(text, end="")
        return
    whose = identify()  # a key that is not valid would only be told in the journal
    need_systemd()
    unit = unit_file()
    if unit.exists() and not unit.read_text().startswith(OURS):
        raise RoostError(f"{unit} is there and not ours.", fix=f"Remove or rename it: {unit}")
    folder = state_folder() / whose.called
    process, service_process = holder(folder), shown(unit.name).main_process
    # A worker of an older release does not say which process it is.
    if process is not None and process != service_process and (process or not service_process):
        raise runs_already(process)
    changed = kept(environment_file(), variables, 0o600) | kept(unit, text, 0o644)
    systemctl("daemon-reload")
    systemctl("enable", unit.name)
    unnamed = service_process and process != service_process  # of an older release: this one says its number
    systemctl("restart" if changed or unnamed else "start", unit.name)
    await_worker(unit.name, folder)
    lingers = linger()
    if as_json:
        print_json({"unit": str(unit), "changed": changed, "linger": lingers})
        return
    print(f"{unit.name} runs; `journalctl --user -u {NAME}` shows what it says.")
    if not lingers:
        print(f"It ends with your last session: `sudo loginctl enable-linger {getpass.getuser()}` keeps it running.")


def uninstall(*, as_json: JsonOption = False) -> None:
    """Stop that service and take it away, with the key it kept. Workspaces stay.

    Example: roost worker uninstall
    """
    refuse_root(ROOT)
    unit = unit_file()
    there = unit.exists() and unit.read_text().startswith(OURS)
    if there:
        if has_systemd():
            systemctl("disable", "--now", unit.name)
        wanted = unit.parent / "default.target.wants" / unit.name
        wanted.unlink(missing_ok=True)  # what `disable` does
        unit.unlink()
        if has_systemd():
            forget(unit.name)
        remove_empty(wanted.parent, below=unit.parents[2])
    environment_file().unlink(missing_ok=True)
    remove_empty(environment_file().parent, below=environment_file().parents[1])
    if as_json:
        print_json({"removed": there})
    else:
        print(f"{unit.name} is gone." if there else "There was no such service.")


def status(*, as_json: JsonOption = False) -> None:
    """Show whether that service is there and runs. Exit code 0: it runs, 1: it does not.

    Example: roost worker status
    """
    refuse_root(ROOT)
    installed = unit_file().exists()
    state = "absent"
    if installed:
        state = asked("is-active", f"{NAME}.service") if has_systemd() else "unknown: there is no systemd for users"
    runs = state == "active"
    if as_json:
        print_json({"installed": installed, "state": state, "linger": linger() if installed else False})
    else:
        print(f"{NAME}.service: {state}." + ("" if installed else " `roost worker install` makes it."))
    if not runs:
        raise typer.Exit(1)


def await_worker(unit: str, folder: Path) -> None:
    """Wait until the service's process is the worker of this user and key.

    Raises:
        RoostError: it ended again, or does not begin.
    """
    ends = time.monotonic() + BEGINS_S
    while True:
        state = shown(unit)
        if state.main_process and named(folder) == state.main_process:
            return
        if state.ended or time.monotonic() > ends:
            said = journal(unit)
            raise RoostError(
                f"{unit} was started, but {'ends again' if state.ended else f'does not work after {BEGINS_S:.0f} s'}"
                + (f": {said}" if said else "."),
                fix=f"`journalctl --user -u {NAME}` has the whole; correct that and run this again, or take "
                "the service away: `roost worker uninstall`.",
            )
        time.sleep(ASKED_EACH_S)


def service(only: Sequence[str], networks: Sequence[str]) -> Service:
    """Return the description of the service."""
    found = shutil.which("roost")
    program = (found,) if found else (sys.executable, "-P", "-m", "roost")
    options = [word for tool in only for word in ("--only", tool)]
    options += [word for network in networks for word in ("--allow-network", network)]
    elsewhere = {} if found else {"PYTHONPATH": str(Path(roost.__file__).parents[1])}
    return Service(
        name=NAME,
        description="Runs the tools of Roost's agent in this user's workspaces",
        command=(*program, "worker", *options),
        environment={"PYTHONUNBUFFERED": "1", **elsewhere},
        environment_file=str(environment_file()),
        per_user=True,
        stop_timeout_s=20,
        stays_down=STAYS_DOWN,
    )


def environment_text(variables: dict[str, str]) -> str:
    """Return variables as systemd reads them from a file (systemd.exec(5), EnvironmentFile=).

    Raises:
        RoostError: a value holds what none of them can.
    """
    lines = []
    for name, value in sorted(variables.items()):
        if not value.isprintable():
            raise RoostError(f"{name} holds what no such variable does.", fix=f"Set {name} again.", exit_code=2)
        safe = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
        lines.append(f'{name}="{safe}"\n')
    return "".join(lines)


def unit_file() -> Path:
    """Return where a user's unit is: where their systemd looks, whose environment need not be that of this shell."""
    settings = systemd_variables().get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(settings) / "systemd" / "user" / f"{NAME}.service"


def environment_file() -> Path:
    """Return where the service's key and address are."""
    return settings_folder() / "worker.env"


def kept(path: Path, text: str, mode: int) -> bool:
    """Write a file if it does not say that already, or is open to others; say whether it was written."""
    if path.exists() and path.read_text() == text and stat.S_IMODE(path.stat().st_mode) == mode:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text, mode=mode)
    return True


def remove_empty(folder: Path, *, below: Path) -> None:
    """Remove a folder and those above it, up to `below`, which stays: as far as they are there and hold nothing."""
    for one in (folder, *folder.parents):
        if one == below:
            return
        try:
            one.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return


def linger() -> bool:
    """Say whether services of this user run without a session of theirs."""
    return (Path("/var/lib/systemd/linger") / getpass.getuser()).exists()
