"""Settings of the gateway, all from the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from roost.gateway.account.usage import Price
from roost.gateway.endpoints.given import parse_given
from roost.gateway.replicas.peers import parse_peers
from roost.gateway.request.shape import ShapeLimits
from roost.gateway.tags import parse_pools
from roost.ops.api_keys import Tier, TierLimits
from roost.ops.errors import RoostError
from roost.ops.validation import problem

ENV_FILE = "ROOST_ENV_FILE"  # NAME=VALUE lines; how a service unit gives variables that no list of processes shows
LONGEST_S = 366 * 86400.0  # an event loop's clock takes no infinity
Wait = Annotated[float, Field(ge=0, le=LONGEST_S)]
Duration = Annotated[float, Field(gt=0, le=LONGEST_S)]


class Settings(BaseSettings):
    """Environment variables `ROOST_<NAME>`; times end in `_s` and are seconds."""

    model_config = SettingsConfigDict(
        env_prefix="ROOST_", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    bind: str = "127.0.0.1"
    port: int = Field(default=8360, ge=0, le=65535)
    listen: str = ""  # ADDR:PORT beyond loopback; needs tls_cert and tls_key
    tls_cert: Path | None = None
    tls_key: Path | None = None
    listen_keeper: Path | None = None  # socket of who keeps these while it is replaced; without it nobody is asked

    api_keys_file: Path | None = None  # one hex SHA-256 of an administrator's key a line
    keys_file: Path | None = None  # the document that `roost keys` writes
    tiers: dict[Tier, TierLimits] = Field(default_factory=dict)  # JSON; a tier that is not named has no limits
    endpoints_file: Path | None = None  # the document of endpoints added by hand; Nomad renders it, or it is ours
    endpoints_variable: str = ""  # where changes of it go, with a Nomad socket
    engine_key_file: Path | None = None
    engine_ca_file: Path | None = None  # trusted for model servers beside the system's authorities
    nomad_socket: Path | None = None
    nomad_token: SecretStr = Field(default=SecretStr(""), validation_alias="NOMAD_TOKEN")
    nomad_namespace: str = "default"
    model_service_prefix: str = "roost-model-"
    worker_job_prefix: str = "roost-rpc-"
    static_endpoints: str = ""  # base URLs, or slot=URL, separated by commas
    search_service: str = "roost-search"  # Nomad's name of SearXNG, for the agent's searches
    searxng_url: str = Field(default="", pattern=r"^(https?://[^\s/@]+(/[^\s@]*)?)?$")  # else where it is

    state_dir: Path | None = None  # where usage is kept; without it in memory only
    usage_prices: dict[str, Price] = Field(default_factory=dict)  # JSON: MODEL or * -> per million tokens
    usage_currency: str = Field(default="", max_length=8)
    usage_watts: float = Field(default=0.0, ge=0, le=1e6)  # what the machine draws more while it answers; 0 is unknown
    usage_keep_days: int = Field(default=400, ge=32, le=36500)
    usage_sync_s: Duration = 0.05  # a power cut loses at most so much
    usage_absorb_s: Duration = 1.0

    otel_endpoint: str = Field(default="", pattern=r"^(https?://[^\s/@]+(/[^\s@]*)?)?$")  # OTLP/HTTP; empty: none
    otel_ca: Path | None = None  # who signed the receiver's certificate, where it is no public authority
    otel_sample_ratio: float = Field(default=1.0, ge=0, le=1)  # of the traces that begin here
    engine_metrics_s: Wait = 10.0  # model servers are asked for their metrics no more often

    # Several gateways that are one service: given by base URL (this one may be among them), or found in Nomad.
    peers: str = ""
    peer_service: str = ""  # name of the Nomad service under which every one registers its address with TLS
    peer_key_file: Path | None = None  # by which they know each other; without it there are no others
    peer_ca: Path | None = None  # the authority of their certificates
    peer_name: str = ""  # a name that their certificates must have, instead of their address
    peer_every_s: Duration = 0.25

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    cost_mode: Literal["", "fast", "smart", "max"] = ""  # of conversations that chose none; empty: smart
    max_body_bytes: int = Field(default=8 << 20, gt=0)
    max_messages: int = Field(default=ShapeLimits.messages, gt=0)
    max_image_bytes: int = Field(default=ShapeLimits.image_bytes, gt=0)
    max_schema_depth: int = Field(default=ShapeLimits.schema_depth, gt=0)
    max_schema_nodes: int = Field(default=ShapeLimits.schema_nodes, gt=0)
    header_timeout_s: Duration = 10.0  # a connection without a complete request header is closed
    body_timeout_s: Duration = 60.0
    wait_s: Wait = 30.0  # for a model that is loading
    move_wait_s: Wait = 90.0  # for one whose machine is lost, until Nomad has given that up and its spare answers
    connect_timeout_s: Duration = 3.0
    remember_s: Wait = 300.0  # how long a model without any endpoint counts as known
    probe_every_s: Duration = 2.0
    probe_unready_every_s: Duration = 0.25
    health_timeout_s: Duration = 5.0
    canary_every_s: Duration = 30.0
    canary_timeout_s: Duration = 30.0
    stall_s: Duration = 300.0  # slots at work that make no progress for so long are stuck
    stuck_restart_s: Wait = 30.0  # a server that stays stuck for so long is replaced; 0: never
    start_wait_s: Wait = 120.0  # for a model that was cold and is being started
    idle_stop_s: Wait = 0.0  # a model that nobody used for so long is stopped; 0: never
    min_stay_s: Wait = 0.0  # a warm model makes no room for another before it has been there for so long
    memory_pools: str = ""  # POOL=BYTES, separated by commas: what the models of a pool may hold together
    model_aliases: dict[str, str] = Field(default_factory=dict)  # JSON: another name -> slot or model
    auto_choice: bool = True  # whether `auto` is chosen among models; else it is the slot main
    route_file: Path | None = None  # a trained router, written by `roost route`; without it the shipped one
    cascade_steps: int = Field(default=1, ge=0, le=3)  # further tries at stronger models for an answer; 0: never
    model_ladder: list[str] = Field(default_factory=list)  # JSON: slots or models, the weakest first; empty: by size
    model_fallbacks: dict[str, list[str]] = Field(default_factory=dict)  # JSON: slot or model -> slots, best first
    fallback_after_s: Wait = 1.0  # how long a chosen model that should be there is waited for
    slots_timeout_s: Duration = 10.0  # to save or restore the slots of a model server
    queue_limit: int = Field(default=512, ge=0)  # requests that wait for a slot
    warm_wait_s: Wait = 2.0  # for the endpoint that holds a conversation while another one is free
    send_timeout_s: Duration = 60.0  # a client that takes nothing for so long has given its answer up
    web_session_s: Duration = 43200.0  # a login on the page that nobody uses ends after so long
    drain_s: Wait = 15.0  # for streams that still run when the service is stopped

    @model_validator(mode="after")
    def _peers_can_be_reached(self) -> Settings:
        if not (self.peers or self.peer_service):
            return self
        if self.peer_key_file is None:
            raise ValueError("peers need ROOST_PEER_KEY_FILE, the key by which they know each other")
        parse_peers(self.peers)
        if self.peer_service and not self.nomad_socket:
            raise ValueError("ROOST_PEER_SERVICE needs ROOST_NOMAD_SOCKET")
        return self

    @field_validator("static_endpoints")
    @classmethod
    def _endpoints_can_be_read(cls, text: str) -> str:
        parse_given(text)
        return text

    @field_validator("memory_pools")
    @classmethod
    def _pools_can_be_read(cls, text: str) -> str:
        parse_pools(text)
        return text


S = TypeVar("S", bound=BaseSettings)


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        RoostError: a variable has a value that it may not have.
    """
    return read_settings(Settings)


def read_settings(kind: type[S]) -> S:
    """Read a process's settings from the environment, and from the file that ROOST_ENV_FILE names; the former win.

    Raises:
        RoostError: a variable has a value that it may not have.
    """
    try:
        return kind(_env_file=os.environ.get(ENV_FILE))
    except SettingsError as error:  # what should be JSON and is not
        field = next((name for name in kind.model_fields if f'"{name}"' in str(error)), "...")
        raise RoostError(f"The environment variable ROOST_{field.upper()} is no JSON.", fix="Correct it.") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper().removeprefix("ROOST_")
        if not name:  # of several variables together
            raise RoostError(f"The environment is not valid: {problem(first)}.", fix="Correct it.") from None
        raise RoostError(
            f"The environment variable ROOST_{name} is not valid: {problem(first)}.", fix="Correct it."
        ) from None
