"""One description of a service, rendered as a systemd unit, a SysV init script or a FreeBSD rc.d script."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from roost.ops.files import sha256_file

TEMPLATES = Path(__file__).parent / "unit_templates"
SUPERVISOR = Path(__file__).parent / "supervise.sh"
RESTART_DELAY_S = 2
LOGS_KEPT = 7
LOG_KIB = 10240
HANGUP = 1  # the number of SIGHUP
PATH_OF_SERVICES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Service:
    """What runs outside Nomad.

    A `daemon` stays in the foreground and is started again whenever it ends; a `oneshot` puts something in place
    (`command`) and takes it away (`stop_command`); begun anew it only runs again. Names in `after` are started first
    where both exist, those in `before` later. Nothing starts while a file of `requires` is missing. `environment_file`
    holds NAME=VALUE lines that the program reads itself (its path is in ROOST_ENV_FILE): no shell of root ever reads
    it, and no list of processes shows its values.

    `confined` takes from it whatever it does not name: the file system is read-only but for `writable`, there are no
    capabilities but `capabilities`, no devices but `devices` (systemd).

    A service `per_user` is one of a user's own systemd, with the rights of that user and no way to more; what would
    keep it from making namespaces is left out, as it runs sandboxes. Its systemd reads `environment_file`.
    """

    name: str
    description: str
    command: tuple[str, ...]
    type: Literal["daemon", "oneshot"] = "daemon"
    stop_command: tuple[str, ...] = ()
    check_command: tuple[str, ...] = ()  # exits 0 while what it is about is in place or in order
    ready_command: tuple[str, ...] = ()  # a daemon is not started while it fails (rc.d)
    user: str = "root"
    environment: Mapping[str, str] = field(default_factory=dict)
    private: bool = False  # its environment has secrets: nobody but root reads its unit or script
    environment_file: str = ""
    folder: str = ""  # the one it runs in, where that matters
    requires: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    before_network: bool = False  # a oneshot that is in place before any network is (systemd)
    open_files: int = 0  # limit of open files; 0: as it is
    oom_score_adjust: int = 0
    kill_children: bool = False  # stop whatever the daemon started, too
    mount_cgroups: bool = False  # without systemd: mount the cgroup file systems where nobody did
    stop_timeout_s: int = 60
    confined: bool = False
    writable: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    per_user: bool = False
    stays_down: tuple[int, ...] = ()  # a service per user is not started anew after these exit codes
    generates_code: bool = False  # a confined program that may write code and run it, as drivers of cards do

    @property
    def variables(self) -> dict[str, str]:
        """The environment with the path of its file."""
        named = {"ROOST_ENV_FILE": self.environment_file} if self.environment_file else {}
        return {**self.environment, **named}

    @property
    def identifier(self) -> str:
        """The name as rc.d takes it: it becomes part of shell variables there."""
        return self.name.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Places:
    """Where units and their files are on this host."""

    install_dir: str = "/opt/roost"
    run_dir: str = "/run/roost"
    log_dir: str = "/var/log/roost"
    systemd_dir: str = "/etc/systemd/system"
    init_dir: str = "/etc/init.d"
    rcd_dir: str = "/usr/local/etc/rc.d"
    rc_conf_dir: str = "/etc/rc.conf.d"
    newsyslog_dir: str = "/usr/local/etc/newsyslog.conf.d"
    rc_subr: str = "/etc/rc.subr"
    daemon: str = "/usr/sbin/daemon"
    chroot: str = "/usr/sbin/chroot"

    @property
    def supervisor(self) -> str:
        """The program that keeps a daemon running where there is no systemd."""
        return f"{self.install_dir}/libexec/roost-supervise"


def _systemd_word(word: str) -> str:
    """Quote one word for a unit, where quotes, backslashes and % have a meaning."""
    safe = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    plain = word and not any(c.isspace() or c in "\"';\\" for c in word)
    return safe if plain else f'"{safe}"'


def _systemd_line(words: Sequence[str]) -> str:
    """Return a command line, where $ has a meaning too."""
    return " ".join(_systemd_word(word).replace("$", "$$") for word in words)


def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=select_autoescape(enabled_extensions=()),  # the result is for systemd and sh, not for browsers
    )
    env.filters["systemd"] = _systemd_line
    env.filters["systemd_word"] = _systemd_word
    env.filters["shell"] = lambda word: shlex.quote(str(word))
    env.filters["shell_words"] = shlex.join
    return env


def render_systemd(service: Service) -> str:
    """Return the text of a systemd unit."""
    return _environment().get_template("service.j2").render(service=service, path=PATH_OF_SERVICES)


def render_sysv(service: Service, places: Places) -> str:
    """Return the text of an init script with an LSB header."""
    # The supervisor's hash makes a new one reach the services that run under the old.
    supervisor = sha256_file(SUPERVISOR)[:16]
    template = _environment().get_template("init.j2")
    return template.render(service=service, places=places, path=PATH_OF_SERVICES, supervisor=supervisor)


FREEBSD = Places(install_dir="/usr/local/lib/roost", run_dir="/var/run/roost")


def render_rcd(service: Service, places: Places = FREEBSD) -> str:
    """Return the text of an rc.d script for FreeBSD, with daemon(8) as the supervisor.

    Sources: rc.subr(8), daemon(8) and "Practical rc.d scripting in BSD" of the FreeBSD project.

    Raises:
        ValueError: it is a oneshot, which nothing of ours is on FreeBSD.
    """
    if service.type != "daemon":
        raise ValueError(f"{service.name} is no daemon")
    words = [
        *("-f", "-r", "-R", str(RESTART_DELAY_S)),
        *("-P", supervisor_pidfile(service, places), "-p", child_pidfile(service, places)),
        *("-o", log_file(service, places), "-H", "-m", "3"),
        *(() if service.user == "root" else ("-u", service.user)),
        *("-t", service.identifier),
        *in_its_environment(service.variables, service.command),
    ]
    return (
        _environment()
        .get_template("rcd.j2")
        .render(
            service=service,
            places=places,
            pidfile=supervisor_pidfile(service, places),
            child_pidfile=child_pidfile(service, places),
            log=log_file(service, places),
            arguments=shlex.join(words),
        )
    )


def in_its_environment(variables: Mapping[str, str], command: Sequence[str]) -> tuple[str, ...]:
    """Return the words that run a command with these variables, and none of whoever runs it: env(1)."""
    known = {"PATH": PATH_OF_SERVICES, "LANG": "C.UTF-8", "HOME": "/", **variables}
    return ("/usr/bin/env", "-i", *(f"{name}={value}" for name, value in sorted(known.items())), *command)


def render_newsyslog(service: Service, places: Places = FREEBSD, *, group: str = "wheel") -> str:
    """Return the line that has FreeBSD's newsyslog(8) rotate the log: daemon(8) opens it anew on HUP.

    Fields after newsyslog.conf(5): file, owner and group, mode, how many are kept, size in KiB, when, flags (J: packed
    with bzip2, C: made if it is missing), whom to tell, with which signal.
    """
    return (
        "# Written by Roost; changes are lost with its next run.\n"
        f"{log_file(service, places)} root:{group} 640 {LOGS_KEPT} {LOG_KIB} * JC "
        f"{supervisor_pidfile(service, places)} {HANGUP}\n"
    )


def supervisor_pidfile(service: Service, places: Places) -> str:
    """Return where daemon(8) says which process it is: what stops it, for its child would be started again."""
    return f"{places.run_dir}/{service.identifier}.supervisor.pid"


def child_pidfile(service: Service, places: Places) -> str:
    """Return where daemon(8) says which process the program is."""
    return f"{places.run_dir}/{service.identifier}.pid"


def log_file(service: Service, places: Places) -> str:
    """Return where the program's output goes."""
    return f"{places.log_dir}/{service.identifier}.log"
