"""The parts of a staged Linux or FreeBSD host: pure, from what is wished and what was made for it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from roost.fleet.stage.parts import AbsentPart, CopyPart, FilePart, FolderPart, LinkPart, Part
from roost.fleet.stage.wish import (
    AGENT,
    ENGINE_FOLDER,
    PYTHON_ON_FREEBSD,
    SLOT,
    START_TIMEOUT_S,
    WORKER,
    Wish,
    WorkerWish,
    as_worker,
    services,
    worker_command,
)
from roost.ops.units import (
    Service,
    child_pidfile,
    log_file,
    render_newsyslog,
    render_rcd,
    render_systemd,
    supervisor_pidfile,
)

STAGED = "staged.json"
WANTS = "multi-user.target.wants"


@dataclass(frozen=True)
class Made:
    """What was made or fetched for the host: the folders and files that are copied into it.

    `program` is the content of host.pyz. FreeBSD has a worker's tree, or none; Linux the two others.
    """

    program: bytes
    model: Path
    engine_tree: Path | None = None
    agent_tree: Path | None = None
    worker_tree: Path | None = None


def linux_parts(wish: Wish, made: Made) -> list[Part]:
    """Return what a Debian host with systemd consists of."""
    install, config, state = wish.places.install_dir, wish.config_dir, wish.state_dir
    parts: list[Part] = [*_common(wish, made)]
    if made.engine_tree and made.agent_tree:
        parts += [CopyPart(ENGINE_FOLDER, made.engine_tree), CopyPart(f"{install}/agent", made.agent_tree)]
    parts += [
        FolderPart(f"{state}/agent", "700", wish.agent_account.uid),
        FilePart("/usr/lib/sysusers.d/roost.conf", _sysusers(wish)),
        FilePart(wish.agent_env, agent_env(wish), "400", wish.agent_account.uid, keep=True),
        FilePart(f"{config}/agent.env.sample", agent_env(wish)),
    ]
    for service in services(wish):
        unit = f"{service.name}.service"
        parts.append(FilePart(f"{wish.places.systemd_dir}/{unit}", render_systemd(service)))
        parts.append(LinkPart(f"{wish.places.systemd_dir}/{WANTS}/{unit}", f"../{unit}"))
    return parts


def freebsd_parts(wish: Wish, made: Made) -> list[Part]:
    """Return what a FreeBSD host consists of: model server and worker by rc.d, their users made at the first boot."""
    parts: list[Part] = [*_common(wish, made)]
    if wish.worker:
        if made.worker_tree is None:
            raise ValueError("a worker is wished for, and its code was not made")
        parts += _worker_parts(wish, wish.worker, made.worker_tree)
    else:
        parts += _no_worker_parts(wish)
    for service in services(wish):
        name = service.identifier
        parts += [
            FilePart(f"{wish.places.rcd_dir}/{name}", render_rcd(service), "555"),
            FilePart(f"{wish.places.newsyslog_dir}/{name}.conf", render_newsyslog(service)),
            FilePart(f"{wish.places.rc_conf_dir}/{name}", f'{name}_enable="YES"\n', keep=True),
        ]
    # rc(8) runs scripts with the keyword firstboot only while /firstboot is there, and removes it afterwards.
    parts += [
        FilePart(f"{wish.places.rcd_dir}/roost_firstboot", _first_boot_rcd(wish), "555"),
        FilePart(f"{wish.places.rc_conf_dir}/roost_firstboot", 'roost_firstboot_enable="YES"\n', keep=True),
        FilePart("/firstboot", "", keep=True),
    ]
    return parts


def _worker_parts(wish: Wish, worker: WorkerWish, tree: Path) -> list[Part]:
    program = shlex.join(as_worker(wish, worker, *worker_command()))
    return [
        CopyPart(wish.worker_tree, tree),
        FolderPart(wish.worker_home, "700", worker.account.uid),
        FilePart(f"{wish.worker_env}.sample", worker_env(wish, worker)),
        FilePart(f"/usr/local/bin/{WORKER}", f'#!/bin/sh\nexec {program} "$@"\n', "755"),
    ]


def _no_worker_parts(wish: Wish) -> list[Part]:
    """Return what goes where an earlier staging had a worker; what the operator gave it, and its own files, stay."""
    name, places = WORKER.replace("-", "_"), wish.places
    return [
        AbsentPart(path)
        for path in (
            f"{places.rc_conf_dir}/{name}",
            f"{places.rcd_dir}/{name}",
            f"{places.newsyslog_dir}/{name}.conf",
            f"/usr/local/bin/{WORKER}",
            f"{wish.worker_env}.sample",
            wish.worker_tree,
        )
    ]


def worker_env(wish: Wish, worker: WorkerWish) -> str:
    """Return the sample of the worker's variables: a key is never part of an image."""
    name = worker.account.name
    return f"""\
# Variables of the worker, NAME=VALUE. It reads them itself: service {WORKER.replace("-", "_")} reload
# As root: install -o {name} -m 400 {wish.worker_env}.sample {wish.worker_env}
# then fill in the key. Nothing starts while that file is missing, has no key, or others may read it.
ROOST_API={worker.api}
# `sudo roost keys add NAME` on the fleet's first machine makes one.
ROOST_API_KEY=
# The fleet's authority, where the API's certificate is of it: `roost ca export` there.
#SSL_CERT_FILE={wish.config_dir}/ca.pem
"""


def _common(wish: Wish, made: Made) -> Sequence[Part]:
    config, state, install = wish.config_dir, wish.state_dir, wish.places.install_dir
    return [
        FolderPart(config),
        FolderPart(f"{config}/secrets", "711"),
        FolderPart(install),
        FolderPart(state),
        FilePart(f"{install}/host.pyz", made.program, "755"),
        FilePart("/usr/local/bin/roost-host", f'#!/bin/sh\nexec python3 {install}/host.pyz "$@"\n', "755"),
        CopyPart(wish.model_path, made.model),
        FilePart(f"{config}/{STAGED}", json.dumps(staged(wish), indent=1) + "\n"),
    ]


def staged(wish: Wish) -> dict[str, object]:
    """Return what the programs inside the booted image must know (`roost-host firstboot`, `roost-host accept`)."""
    return {
        "system": wish.system,
        "config_dir": wish.config_dir,
        "secrets": _secrets(wish),
        "services": [_service(wish, service) for service in services(wish)],
        "api": f"http://{wish.loopback}:{wish.api_port}" if wish.system == "linux" else "",
        "engine": f"http://{wish.loopback}:{wish.engine_port}",
        "engine_key": wish.engine_key,
        "api_key": f"{wish.config_dir}/secrets/api-key" if wish.system == "linux" else "",
        "start_timeout_s": START_TIMEOUT_S,
    }


def _service(wish: Wish, service: Service) -> dict[str, object]:
    if wish.system == "linux":
        return {"name": service.name, "type": service.type, "pidfiles": [], "log": "", "rotation": ""}
    return {
        "name": service.identifier,
        "type": service.type,
        "pidfiles": [supervisor_pidfile(service, wish.places), child_pidfile(service, wish.places)],
        "log": log_file(service, wish.places),
        "rotation": f"{wish.places.newsyslog_dir}/{service.identifier}.conf",
    }


def _secrets(wish: Wish) -> list[dict[str, object]]:
    """Return which secrets the first boot makes, and where: never a part of an image.

    Each has copies for those who may read it, and perhaps a file of its SHA-256.
    """
    folder = f"{wish.config_dir}/secrets"
    engine = [{"path": wish.engine_key, "uid": wish.engine_account.uid}]
    if wish.system == "freebsd":  # root's copy is for `roost endpoints add` elsewhere
        return [{"files": [*engine, {"path": f"{folder}/engine-key.copy", "uid": 0}]}]
    agent = wish.agent_account.uid
    return [
        {"files": [*engine, {"path": f"{folder}/agent-engine-key", "uid": agent}]},
        {
            "files": [{"path": f"{folder}/api-key", "uid": 0}],
            "hashes": [{"path": f"{folder}/api-keys", "uid": agent}],
        },
    ]


def agent_env(wish: Wish) -> str:
    """Return the agent's variables with what each is for."""
    folder = f"{wish.config_dir}/secrets"
    return f"""\
# Variables of the agent, NAME=VALUE. It reads them itself when it starts: systemctl restart {AGENT}
# Model servers, SLOT=URL, separated by commas; more are added with `roost endpoints add`.
ROOST_STATIC_ENDPOINTS={SLOT}=http://{wish.loopback}:{wish.engine_port}
ROOST_ENGINE_KEY_FILE={folder}/agent-engine-key
# Hashes of administrators' keys. The first key is in {folder}/api-key, readable by root.
ROOST_API_KEYS_FILE={folder}/api-keys
ROOST_BIND={wish.loopback}
ROOST_PORT={wish.api_port}
# For the network: ROOST_LISTEN=ADDR:PORT, with ROOST_TLS_CERT and ROOST_TLS_KEY.
ROOST_STATE_DIR={wish.state_dir}/agent
"""


def _sysusers(wish: Wish) -> str:
    lines = [f"g {wish.group} -"]
    lines += [f'u {a.name} {a.uid}:{wish.group} "{a.comment}"' for a in wish.accounts]
    return "\n".join(["# Users of Roost; see sysusers.d(5).", *lines, ""])


def _first_boot_rcd(wish: Wish) -> str:
    template = (files("roost.fleet.stage") / "firstboot.rcd").read_text()
    made = [f"add_user {shlex.join([one.name, str(one.uid), one.comment])} || return 1" for one in wish.accounts]
    values = {
        "@GROUP@": wish.group,
        "@USERS@": "\n    ".join(made),
        "@PYTHON@": PYTHON_ON_FREEBSD,
        "@PROGRAM@": f"{wish.places.install_dir}/host.pyz",
        "@RCSUBR@": wish.places.rc_subr,
        "@BEFORE@": " ".join(service.identifier for service in services(wish)),
    }
    for name, value in values.items():
        template = template.replace(name, value)
    return template
