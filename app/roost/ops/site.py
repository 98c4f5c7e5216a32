"""What is installed on this machine, as the playbook wrote it down for the command line.

`/etc/roost/site.json` holds addresses and paths, no secret; everyone may read it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roost.ops.errors import RoostError
from roost.ops.validation import in_words

DEFAULT_PATH = Path("/etc/roost/site.json")
NOT_INSTALLED = 3  # the exit code of commands that need an installation


class Slot(BaseModel):
    """One model server: its name, the model of the catalogue it serves, its job in Nomad."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slot: str
    model: str
    job: str


class Site(BaseModel):
    """Addresses and paths of an installation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str
    runtime: Literal["docker", "local"]
    api: str  # base URL on loopback, e.g. http://127.0.0.1:8360; on most machines of a fleet that of another one
    api_ca: Path | None = None  # trusted for it, where it is on another machine
    api_listen: str | None = None  # base URL on the LAN when --listen was given
    web: str
    nomad: str
    nomad_ca: Path
    nomad_cert: Path
    nomad_key: Path
    nomad_token_file: Path
    api_key_file: Path
    agent_job: str
    slots: list[Slot]
    catalogue: Path
    models_dir: Path
    state_dir: Path
    cache_dir: Path
    bandwidth_file: Path | None = None  # what the memory probe found
    log_dir: Path
    artifacts_dir: Path
    install_dir: Path
    docker_host: str = ""
    monitoring: str = ""  # where Prometheus answers, if it runs
    listen_dir: Path | None = None  # where listening sockets of the agent or a gateway are kept
    search: str = ""  # where SearXNG answers, if it runs here
    engine_gpus: list[str] = Field(default_factory=list)  # what the engine's packages are chosen for, beside processors
    fleet: str = ""  # name of the machine that a fleet is set up from; empty for a machine alone
    better_plan: str = ""  # what this machine could serve if a model hub were allowed, in one line

    @property
    def trusted_for_api(self) -> Path | None:
        """The authority of the API's certificate: on another machine, or here at its address on the LAN."""
        return self.api_ca or (self.nomad_ca if self.api_listen else None)


def load_site(path: Path | None = None) -> Site:
    """Read the site file; `$ROOST_SITE` names another one.

    Raises:
        RoostError: nothing is installed here, or the file cannot be read.
    """
    where = path or Path(os.environ.get("ROOST_SITE", str(DEFAULT_PATH)))
    try:
        return Site.model_validate_json(where.read_text())
    except FileNotFoundError:
        raise RoostError(
            f"Roost is not installed on this machine ({where} is missing).",
            fix="Run ./bootstrap.sh.",
            exit_code=NOT_INSTALLED,
        ) from None
    except PermissionError:
        raise RoostError(f"{where} cannot be read.", fix="Run the command as root.", exit_code=4) from None
    except ValidationError as error:
        raise RoostError(f"{where} is not valid: {in_words(error)}.", fix="Run ./bootstrap.sh again.") from None
