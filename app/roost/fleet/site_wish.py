"""What is wanted of a site's jobs, as the playbook's variables and the plan say it. Checked, plain data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from roost.fleet.jobs import LOOPBACK_NETWORK, START_S, Engine, Identity
from roost.fleet.monitoring.job import MonitoringWish
from roost.fleet.search.job import SearchWish
from roost.models.footprint import CacheType, LayerSplit, ServerSettings

Runtime = Literal["docker", "local"]
HOST_POOL = "host"  # the machine's own memory, where nobody named pools


class RpcWish(BaseModel):
    """A worker on another host that holds the first `layers` of a slot's model; its graphics processors as facts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    address: str
    port: int = Field(ge=1, le=65535)
    layers: int = Field(ge=1)
    memory_mib: int = Field(ge=1)
    network: str = LOOPBACK_NETWORK
    gpus: list[int] = Field(default_factory=list)
    gpu_facts: list[dict[str, Any]] = Field(default_factory=list)


class SlotWish(BaseModel):
    """One model server as it was decided: an entry of the variable `model_slots`, and what the plan added.

    `gpus` are places among the host's facts `gpus`, `gpu_layers` how many layers lie on each, `host` and `spares` names
    of Nomad nodes. `adapters` are names of the catalogue, or files below the models folder. `memory_mib` limits the
    machine's own memory; 0 leaves it to `models.memory`. `memory` is what the server holds of each pool of
    `SiteWish.memory_pools`, in bytes; by default its limit of the pool `host`. `number` counts the servers of a slot
    that may run anywhere in a fleet, from 1; 0: it is the machine's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slot: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    model: str
    context_size: int = Field(ge=256)
    parallel: int = Field(default=1, ge=1, le=64)
    cache_ram_mib: int = Field(default=256, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    gpus: list[int] = Field(default_factory=list)
    gpu_layers: list[int] = Field(default_factory=list)
    kv_unified: bool = False
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attention: bool = True
    batch: int = Field(default=ServerSettings.batch, ge=1)
    ubatch: int = Field(default=ServerSettings.ubatch, ge=1)
    memory_mib: int = Field(default=0, ge=0)
    projector: str = ""
    adapters: list[str] = Field(default_factory=list)
    embedding: bool = False
    save_slots: bool | None = None  # None: where the model's architecture makes it worth while
    keep_warm: bool = False
    on_demand: bool = False
    memory: dict[str, int] = Field(default_factory=dict)
    host: str = ""
    spares: list[str] = Field(default_factory=list)
    rpc: list[RpcWish] = Field(default_factory=list)
    number: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _layers_belong_to_gpus(self) -> SlotWish:
        if len(self.gpus) != len(self.gpu_layers) or any(layers < 1 for layers in self.gpu_layers):
            raise ValueError("gpu_layers names a number of layers for each of gpus")
        if self.keep_warm and self.on_demand:
            raise ValueError("a slot is kept warm or started on demand, not both")
        return self

    @property
    def settings(self) -> ServerSettings:
        """Return how the server is started, as far as memory depends on it."""
        return ServerSettings(
            context_size=self.context_size,
            parallel=self.parallel,
            kv_unified=self.kv_unified,
            cache_type_k=self.cache_type_k,
            cache_type_v=self.cache_type_v,
            flash_attention=self.flash_attention,
            batch=self.batch,
            ubatch=self.ubatch,
            cache_ram_mib=self.cache_ram_mib,
            adapters=tuple(self.adapters),
        )

    @property
    def split(self) -> LayerSplit:
        """Return which layers lie on which graphics processor of this host."""
        return LayerSplit(tuple(self.gpus), tuple(self.gpu_layers))


class SiteWish(BaseModel):
    """What the playbook's variables say of this site's jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime: Runtime
    engine: Engine
    datacenter: str
    bind: str  # of the agent, and of model servers on a machine for itself
    node: str = ""  # in a fleet: this machine's name in Nomad. Jobs of model servers then end with it
    engine_address: str = ""  # in a fleet: where this machine's model servers answer, with TLS
    engine_tls_dir: str = ""
    gateway_tls_dir: str = ""  # in a fleet: where each machine has the certificate of its gateway
    with_agent: bool = True
    api_port: int
    listen: str = ""
    agent_memory_mib: int
    agent_log_level: str
    agent_cost_mode: str
    agent_state_dir: str = ""
    gateway_replicas: int = Field(default=0, ge=0)  # further gateways on other nodes
    agent_settings: dict[str, JsonValue] = Field(default_factory=dict)  # environment; what is no text goes as JSON
    models_dir: str
    slots: list[SlotWish]
    elsewhere: list[str] = Field(default_factory=list)  # jobs of slots that may run anywhere and other machines have
    engine_threads: int = Field(default=0, ge=0)
    gpus: list[dict[str, Any]] = Field(default_factory=list)  # of the host's facts
    engine_packages: list[str] = Field(default_factory=list)
    engine_gpu_packages: dict[str, list[str]] = Field(default_factory=dict)
    engine_cuda_image: str = ""
    start_s: int = Field(default=START_S, ge=10)  # within which a model server must be healthy
    slots_dir: str = ""  # where saved slots lie on the host
    idle_stop_s: int = Field(default=0, ge=0)
    min_stay_s: int = Field(default=0, ge=0)
    fallbacks: dict[str, list[str]] = Field(default_factory=dict)
    memory_pools: dict[str, int] = Field(default_factory=dict)  # bytes that the models of a pool may hold together
    monitoring: MonitoringWish | None = None  # None: no Prometheus
    search: SearchWish | None = None  # None: no SearXNG
    agent_identity: Identity
    engine_identity: Identity

    @model_validator(mode="after")
    def _others_are_answered_with_tls(self) -> SiteWish:
        if bool(self.node) != bool(self.engine_address) or bool(self.node) != bool(self.engine_tls_dir):
            raise ValueError("node, engine_address and engine_tls_dir belong together")
        if not self.slots and not self.node:
            raise ValueError("slots names at least one")
        return self
