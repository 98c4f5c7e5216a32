"""Services on this host: written, enabled, started, and restarted only when something of theirs changed."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from roost.ops.errors import RoostError
from roost.ops.files import sha256_file, write_atomic
from roost.ops.ownership import Manifest
from roost.ops.processes import terminations_raised
from roost.ops.run import run
from roost.ops.units import SUPERVISOR, Places, Service, render_systemd, render_sysv

SYSTEMD_RUNS = Path("/run/systemd/system")
STAMPS = "services"  # the folder beside the manifest that says what each was started with
TIMEOUT_S = 180
ROOTS_OWN = (0o600, 0o700)  # modes of units and scripts that have secrets
SAID_LINES = 8  # of the journal, where a service did not start


class Init(Protocol):
    """An init system, as far as one service is concerned."""

    unit: Path
    text: str
    mode: int

    def install(self) -> None:
        """Bring what the unit needs, and make the init system read it again."""

    def enabled(self) -> bool:
        """Say whether it starts at boot."""

    def enable(self) -> None:
        """Start it at boot from now on."""

    def in_order(self) -> bool:
        """Say whether it runs, or is in place."""

    def start(self, *, again: bool) -> None:
        """Start it; `again`: also if it runs."""

    def remove(self) -> None:
        """Stop it, never start it again, take the unit away."""


def _succeeds(*words: str) -> bool:
    try:
        run(words, timeout_s=TIMEOUT_S)
    except RoostError:
        return False
    return True


def _verb_anew(kind: str) -> str:
    """Return what begins a service anew; what a oneshot put in place is there until the new is, and if that fails."""
    return "reload-or-restart" if kind == "oneshot" else "restart"


def _systemctl(verb: str, name: str) -> None:
    """Start or stop a unit.

    Raises:
        RoostError: it failed; the message ends with what the service said, which systemctl does not repeat.
    """
    fix = f"See `systemctl status {name}` and `journalctl -u {name}`."
    try:
        run(["systemctl", verb, f"{name}.service"], timeout_s=TIMEOUT_S, fix=fix)
    except RoostError as error:
        said = ""
        with contextlib.suppress(RoostError):
            said = run(["journalctl", "--unit", name, "--lines", str(SAID_LINES), "--output", "cat", "--no-pager"])
        raise RoostError(f"{error.message}\n{said.strip()}".strip(), fix=fix) from None


class Systemd:
    """systemd as PID 1."""

    def __init__(self, service: Service, places: Places) -> None:
        """Render the unit."""
        self.mode = 0o600 if service.private else 0o644
        self.service = service
        self.unit = Path(places.systemd_dir) / f"{service.name}.service"
        self.text = render_systemd(service)

    def install(self) -> None:
        """Make systemd read the unit."""
        run(["systemctl", "daemon-reload"])

    def enabled(self) -> bool:
        """Ask systemd."""
        return _succeeds("systemctl", "--quiet", "is-enabled", self.unit.name)

    def enable(self) -> None:
        """Enable the unit."""
        run(["systemctl", "--quiet", "enable", self.unit.name])

    def in_order(self) -> bool:
        """Ask systemd, and the service's own check where a oneshot has one."""
        if not _succeeds("systemctl", "--quiet", "is-active", self.unit.name):
            return False
        return self.service.type == "daemon" or not self.service.check_command or _succeeds(*self.service.check_command)

    def start(self, *, again: bool) -> None:
        """Start or restart the unit."""
        # A oneshot whose effect was undone counts as active for systemd, so it is always run again.
        verb = _verb_anew(self.service.type) if again or self.service.type == "oneshot" else "start"
        _systemctl(verb, self.service.name)

    def remove(self) -> None:
        """Stop, disable and remove the unit."""
        if self.unit.exists():
            run(["systemctl", "--quiet", "disable", "--now", self.unit.name], timeout_s=TIMEOUT_S)
            self.unit.unlink()
        run(["systemctl", "daemon-reload"])
        _succeeds("systemctl", "--quiet", "reset-failed", self.unit.name)


class SysV:
    """SysV init, or no init system at all: then everything works but the start at boot."""

    def __init__(self, service: Service, places: Places) -> None:
        """Render the init script."""
        self.mode = 0o700 if service.private else 0o755
        self.service = service
        self.places = places
        self.unit = Path(places.init_dir) / service.name
        self.text = render_sysv(service, places)
        self.log = Path(places.log_dir) / f"{service.name}.log"

    def install(self) -> None:
        """Put the supervisor in its place."""
        supervisor = Path(self.places.supervisor)
        text = SUPERVISOR.read_text()
        if not supervisor.exists() or supervisor.read_text() != text:
            supervisor.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(supervisor, text, mode=0o755)

    def enabled(self) -> bool:
        """Look for the links of the runlevels; without update-rc.d there is nothing that could start it."""
        links = Path(self.places.init_dir).parent.glob(f"rc[2-5].d/S[0-9][0-9]{self.service.name}")
        return shutil.which("update-rc.d") is None or any(links)

    def enable(self) -> None:
        """Make the links of the runlevels."""
        run(["update-rc.d", self.service.name, "defaults"])

    def in_order(self) -> bool:
        """Ask the script."""
        return self.unit.exists() and _succeeds(str(self.unit), "status")

    def start(self, *, again: bool) -> None:
        """Start or restart it by its script."""
        run([self.unit, "restart" if again else "start"], timeout_s=TIMEOUT_S, fix=f"See {self.log}.")

    def remove(self) -> None:
        """Stop it, remove its script and links, and its logs."""
        if self.unit.exists():
            run([self.unit, "stop"], timeout_s=TIMEOUT_S)
            self.unit.unlink()
        for log in (self.log, self.log.with_name(f"{self.log.name}.1")):
            log.unlink(missing_ok=True)
        if shutil.which("update-rc.d"):
            run(["update-rc.d", self.service.name, "remove"])


def init_of(service: Service, places: Places) -> Init:
    """Return the host's init system: systemd where it runs as PID 1, else SysV."""
    return Systemd(service, places) if SYSTEMD_RUNS.is_dir() else SysV(service, places)


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, or would be: in words, with the unit's text before and after; not one that has secrets."""

    done: list[str] = field(default_factory=list)
    before: str = ""
    after: str = ""


def fingerprint(text: str, command: Sequence[str], files: Sequence[str]) -> str:
    """Return a hash over all that a running service was started with: its unit, its program, its files.

    A file that does not exist counts as such, so a check before the first run does not fail.
    """
    digest = hashlib.sha256(text.encode())
    # A program found by name belongs to a package, whose own scripts restart what they must.
    programs = [command[0]] if command and command[0].startswith("/") else []
    for name in [*programs, *files]:
        path = Path(name)
        digest.update(f"\0{name}\0{sha256_file(path) if path.is_file() else '-'}".encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Host:
    """What `ensure` and `remove` work with: the init system, the manifest, and a folder of stamps."""

    init: Init
    manifest: Manifest
    stamps: Path

    def stamp(self, service: Service) -> Path:
        """Return the file that says what the service was started with."""
        return self.stamps / f"{service.name}.sha256"


def service_files(name: str, stamps: Path, places: Places | None = None) -> list[Path]:
    """Return the files by which a service of ours is known: its unit or script, and what it was started with."""
    places = places or Places()
    unit = Path(places.systemd_dir) / f"{name}.service"
    return [unit if SYSTEMD_RUNS.is_dir() else Path(places.init_dir) / name, stamps / f"{name}.sha256"]


def state_of(name: str, places: Places | None = None) -> str:
    """Say whether a service runs and starts at boot, as the init system says it; of one that is not there, too."""
    places = places or Places()
    if SYSTEMD_RUNS.is_dir():
        asked = "ActiveState,UnitFileState,NeedDaemonReload"
        return " ".join(run(["systemctl", "show", f"--property={asked}", f"{name}.service"]).split())
    script = Path(places.init_dir) / name
    if not script.exists():
        return "absent"
    return "runs" if _succeeds(str(script), "status") else "does not run"


def begin_anew(name: str, places: Places | None = None) -> None:
    """Restart a service with the files that are there now; a oneshot runs again, and undoes nothing before.

    Raises:
        RoostError: it does not start.
    """
    places = places or Places()
    if SYSTEMD_RUNS.is_dir():
        run(["systemctl", "daemon-reload"])
        kind = run(["systemctl", "show", "--property=Type", "--value", f"{name}.service"]).strip()
        _systemctl(_verb_anew(kind), name)
    else:
        run([Path(places.init_dir) / name, "restart"], timeout_s=TIMEOUT_S, fix=f"See {places.log_dir}/{name}.log.")


@contextlib.contextmanager
def paused(names: Sequence[str], places: Places | None = None) -> Iterator[None]:
    """Stop those of the services that run, and start them again at the end, whatever happens in between.

    A run that is told to end does not leave them stopped. In the main thread only.

    Raises:
        RoostError: one does not stop, or does not start again.
    """
    places = places or Places()
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminations_raised())
        for name in names:
            if _runs(name, places):
                stack.callback(_tell, "start", name, places)
                _tell("stop", name, places)
        yield


def run_again(name: str, places: Places | None = None) -> bool:
    """Start a service that is stopped; return whether it was.

    Raises:
        RoostError: it does not start.
    """
    places = places or Places()
    if _runs(name, places):
        return False
    _tell("start", name, places)
    return True


def _runs(name: str, places: Places) -> bool:
    if SYSTEMD_RUNS.is_dir():
        return _succeeds("systemctl", "--quiet", "is-active", f"{name}.service")
    script = Path(places.init_dir) / name
    return script.exists() and _succeeds(str(script), "status")


def _tell(verb: str, name: str, places: Places) -> None:
    if SYSTEMD_RUNS.is_dir():
        _systemctl(verb, name)
    else:
        run([Path(places.init_dir) / name, verb], timeout_s=TIMEOUT_S, fix=f"See {places.log_dir}/{name}.log.")


def _content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _mode(path: Path) -> int | None:
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


def ensure(
    host: Host,
    service: Service,
    restart_on: Sequence[str],
    *,
    dry_run: bool,
    changed_before: bool = False,
    pauses: Sequence[str] = (),
) -> Change:
    """Bring a service to what its description says; nothing is touched that is so already.

    Services of ours that `pauses` names do not run while this one begins anew.

    `changed_before` counts in a dry run only: files that an earlier step would have written are then not what they
    will be, so their content cannot tell.

    Raises:
        RoostError: somebody else's unit has that name, or the service cannot be started.
    """
    init, stamp = host.init, host.stamp(service)
    before = _content(init.unit)
    ours = service.name in host.manifest.owned("unit")
    if before and not ours:
        raise RoostError(
            f"{init.unit} is there and not ours.", fix=f"Remove or rename it, then run it again: {init.unit}"
        )
    was = _mode(init.unit)
    wanted = fingerprint(init.text, service.command, restart_on)
    write, stale = before != init.text or was != init.mode, _content(stamp).strip() != wanted
    stale = stale or (dry_run and changed_before)
    runs = not write and init.in_order()
    enable = write or not init.enabled()
    done = []
    if write:
        done.append("unit written")
    if enable:
        done.append("enabled at boot")
    if stale or not runs:
        done.append("restarted" if runs or (before and stale) else "started")
    if done and not dry_run:
        again = bool(before) and stale
        # Until it has begun nobody knows with what it runs.
        stamp.unlink(missing_ok=True)
        with paused(pauses if again else ()):
            _apply(host, service, write=write, enable=enable, start=stale or not runs, again=again)
        # Hashed again: what is started now is what is there now.
        stamp.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(stamp, fingerprint(init.text, service.command, restart_on) + "\n")
    if init.mode in ROOTS_OWN or (before and was in ROOTS_OWN):
        return Change(done)
    return Change(done, before, init.text)


def _apply(host: Host, service: Service, *, write: bool, enable: bool, start: bool, again: bool) -> None:
    init = host.init
    if write:
        host.manifest.own("unit", service.name)
        init.unit.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(init.unit, init.text, mode=init.mode)
    if write or start:
        init.install()
    if enable:
        init.enable()
    if start:
        init.start(again=again)


def remove(host: Host, service: Service, *, dry_run: bool) -> Change:
    """Stop a service and take it away, if it is ours."""
    if service.name not in host.manifest.owned("unit"):
        return Change()
    before = "" if _mode(host.init.unit) in ROOTS_OWN else _content(host.init.unit)
    if not dry_run:
        host.init.remove()
        host.stamp(service).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are left in it, or it never was
            host.stamps.rmdir()
        host.manifest.forget("unit", service.name)
    return Change(["stopped and removed"], before, "")


def take_away(name: str, manifest: Manifest, stamps: Path, places: Places | None = None) -> bool:
    """Stop a service of which nothing but the name is known, and take it away, if it is ours; return whether it was."""
    service = Service(name=name, description=name, command=(name,))
    return bool(remove(Host(init_of(service, places or Places()), manifest, stamps), service, dry_run=False).done)
