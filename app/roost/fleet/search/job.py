"""SearXNG as a job of the fleet: what it runs, and its secret. It answers on loopback only, where the agent is."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, field_validator

from roost.fleet.jobs import SEARCH_JOB, Driver, Identity, SearchJob
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.fleet.nomad_setup import NOT_FOUND, ensure_variable
from roost.fleet.search.settings import Engine, settings_document
from roost.ops.errors import RoostError

SETTINGS_FILE = "settings.yml"
# Items of its variable: what SearXNG signs with, and its settings, which may name keys of engines.
SIGNING, SETTINGS = "signing", "settings"
VARIABLE = f"nomad/jobs/{SEARCH_JOB}"


class SearchWish(BaseModel):
    """What the playbook's variables say of SearXNG. `command` runs it where there are no containers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: int = Field(ge=1, le=65535)
    memory_mib: int = Field(ge=128)
    engines: tuple[Engine, ...] = ()
    command: tuple[str, ...] = ()
    identity: Identity

    @field_validator("engines")
    @classmethod
    def _have_names(cls, engines: tuple[Engine, ...]) -> tuple[Engine, ...]:
        for engine in engines:
            if not isinstance(engine, str) and not engine.get("name"):
                raise ValueError(f"an engine has no name: {engine}")
        return engines


@dataclass(frozen=True)
class SearchPrograms:
    """The image, where there are containers."""

    image: str = ""


def search_job(wish: SearchWish, programs: SearchPrograms, driver: Driver, *, datacenter: str, bind: str) -> SearchJob:
    """Decide the job. It listens on `bind` only: it speaks no TLS and asks for no key.

    Raises:
        RoostError: there are no containers, and nothing says how it is started.
    """
    if driver == "raw_exec" and not wish.command:
        raise no_command()
    program, *args = wish.command if driver == "raw_exec" else ("",)
    command, args = wish.identity.command(driver, program, args)
    return SearchJob(
        name=SEARCH_JOB,
        datacenter=datacenter,
        driver=driver,
        user=wish.identity.user(driver),
        uid=wish.identity.uid,
        gid=wish.identity.gid,
        image=programs.image,
        command=command,
        args=args,
        env={
            "SEARXNG_SETTINGS_PATH": f"${{NOMAD_SECRETS_DIR}}/{SETTINGS_FILE}",
            # It reads its settings once: with others it is another job, which has to come up.
            "ROOST_SEARCH_SETTINGS": hashlib.sha256(settings_of(wish, bind).encode()).hexdigest()[:16],
            # its image's server takes its address from these, what it is started with elsewhere from the settings
            "GRANIAN_HOST": bind,
            "GRANIAN_PORT": str(wish.port),
            "TMPDIR": "${NOMAD_ALLOC_DIR}/tmp",  # its cache; the root of the container is read-only
            "HOME": "${NOMAD_ALLOC_DIR}/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        settings_file=SETTINGS_FILE,
        settings_item=SETTINGS,
        signing_item=SIGNING,
        port=wish.port,
        cpu_mhz=200,
        memory_mib=wish.memory_mib,
    )


def no_command() -> RoostError:
    """Return what to say where there are no containers and nothing says how SearXNG is started."""
    return RoostError(
        "SearXNG comes as an image, and this installation runs without containers.",
        fix="Install SearXNG (https://docs.searxng.org/admin/installation.html) and name what starts it: "
        "`roost search enable --command '/usr/local/searxng/searx-pyenv/bin/python -m searx.webapp'`. Or set "
        "ROOST_SEARXNG_URL or ROOST_BRAVE_KEY for `roost worker`.",
        exit_code=2,
    )


def settings_of(wish: SearchWish, bind: str) -> str:
    """Return the settings of the SearXNG that is wanted."""
    return settings_document(wish.engines, bind=bind, port=wish.port)


def ensure_search_variable(client: NomadClient, wish: SearchWish, *, bind: str, dry_run: bool = False) -> bool:
    """Store what only the job may read: a secret made once, and its settings; return whether that changed.

    Raises:
        RoostError: Nomad does not answer, or refuses.
    """
    signing = _items(client).get(SIGNING) or secrets.token_hex(32)
    items = {SIGNING: signing, SETTINGS: settings_of(wish, bind)}
    return ensure_variable(client, VARIABLE, items, dry_run=dry_run)


def _items(client: NomadClient) -> Mapping[str, str]:
    try:
        items: Mapping[str, str] = (client.get(f"var/{VARIABLE}") or {}).get("Items", {})
    except NomadRefusedError as error:
        if error.status != NOT_FOUND:
            raise
        return {}
    return items


def forget_search_variable(client: NomadClient) -> None:
    """Take away what only the job could read."""
    client.request("DELETE", f"var/{VARIABLE}")
