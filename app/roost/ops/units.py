"""One description of a service, rendered as a systemd unit or as a SysV init script."""

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
PATH_OF_SERVICES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Service:
    """What runs outside Nomad.

    A `daemon` stays in the foreground and is started again whenever it ends; a `oneshot` puts something in place
    (`command`) and takes it away (`stop_command`). Names in `after` are started first where both exist. Nothing
    starts while a file of `requires` is missing.
    """

    name: str
    description: str
    command: tuple[str, ...]
    type: Literal["daemon", "oneshot"] = "daemon"
    stop_command: tuple[str, ...] = ()
    check_command: tuple[str, ...] = ()  # exits 0 while what it is about is in place or in order
    user: str = "root"
    environment: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    open_files: int = 0  # limit of open files; 0: as it is
    oom_score_adjust: int = 0
    kill_children: bool = False  # stop whatever the daemon started, too
    mount_cgroups: bool = False  # without systemd: mount the cgroup file systems where nobody did
    stop_timeout_s: int = 60


@dataclass(frozen=True, slots=True)
class Places:
    """Where units and their files are on this host."""

    install_dir: str = "/opt/roost"
    run_dir: str = "/run/roost"
    log_dir: str = "/var/log/roost"
    systemd_dir: str = "/etc/systemd/system"
    init_dir: str = "/etc/init.d"

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
