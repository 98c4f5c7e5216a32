"""The arguments of llama.cpp's server for one slot: pure.

Flags as in its `--help` of version 0.7.0 (build 11669); only what differs from the engine's own defaults is named.
`--fit off`: what lies where is our plan's decision. `--log-verbosity 4`: the start log then says how many layers went
to which device (`roost.fleet.engine_start` reads it); requests and answers are logged from 5 on only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from roost.models.footprint import LayerSplit, ServerSettings

PORT = "${NOMAD_PORT_http}"
ENGINE_KEY_FILE = "${NOMAD_SECRETS_DIR}/engine-key"
START_LOG_VERBOSITY = "4"


@dataclass(frozen=True)
class RpcWorker:
    """A worker on another host that holds the first layers: its address `HOST:PORT` and how many it holds."""

    address: str
    layers: int


@dataclass(frozen=True)
class ServerFiles:
    """Files of one server as it sees them, or empty: weights, projector for images, adapters, folder of saved slots,
    and the certificate with its key where it answers with TLS."""

    model: str
    projector: str = ""
    adapters: tuple[str, ...] = ()
    slot_save_dir: str = ""
    tls_cert: str = ""
    tls_key: str = ""


@dataclass(frozen=True)
class Offload:
    """Where layers go: `split` on this host's devices, which the engine calls `names`, after those on `rpc` workers.

    `backends`: the engine could use a device, so that it must be told when it shall not.
    """

    split: LayerSplit = field(default_factory=LayerSplit)
    names: tuple[str, ...] = ()
    rpc: tuple[RpcWorker, ...] = ()
    backends: bool = False

    @property
    def layers(self) -> int:
        """Return how many layers are not in the memory of this host's processor."""
        return self.split.total + sum(worker.layers for worker in self.rpc)


def offload_args(offload: Offload) -> list[str]:
    """Return the arguments that put layers on devices, in the order of `--device`: first layers first."""
    if not offload.layers:
        return ["--device", "none", "--gpu-layers", "0"] if offload.backends else []
    parts = [(f"RPC{i}", worker.layers) for i, worker in enumerate(offload.rpc)]
    parts += list(zip(offload.names, offload.split.gpu_layers, strict=True))
    args = ["--gpu-layers", str(offload.layers), "--device", ",".join(name for name, _ in parts)]
    if offload.rpc:
        args = ["--rpc", ",".join(worker.address for worker in offload.rpc), *args]
    if len(parts) == 1:
        return [*args, "--split-mode", "none", "--main-gpu", "0"]
    return [*args, "--split-mode", "layer", "--tensor-split", ",".join(str(layers) for _, layers in parts)]


def memory_args(settings: ServerSettings, *, offloaded: bool) -> list[str]:
    """Return the arguments on which memory depends."""
    args = [
        "--ctx-size", str(settings.context_size * settings.parallel), "--parallel", str(settings.parallel),
        "--cache-ram", str(settings.cache_ram_mib), "--fit", "off",
    ]  # fmt: skip
    if settings.kv_unified:
        args.append("--kv-unified")
    if settings.cache_type_k != "f16":
        args += ["--cache-type-k", settings.cache_type_k]
    if settings.cache_type_v != "f16":
        args += ["--cache-type-v", settings.cache_type_v]
    if not settings.flash_attention:
        args += ["--flash-attn", "off"]
    elif offloaded or settings.cache_type_v != "f16":  # left to itself the engine may do without, and need more
        args += ["--flash-attn", "on"]
    if settings.batch != ServerSettings.batch:
        args += ["--batch-size", str(settings.batch)]
    if settings.ubatch != ServerSettings.ubatch:
        args += ["--ubatch-size", str(settings.ubatch)]
    return args


def server_args(
    files: ServerFiles,
    settings: ServerSettings,
    offload: Offload,
    *,
    alias: str,
    bind: str,
    threads: int = 0,
    temperature: float | None = None,
    embedding: bool = False,
    chat_template: str = "",
    port: str = PORT,
    key_file: str = ENGINE_KEY_FILE,
) -> list[str]:
    """Return all arguments of `llama-server`; `threads` 0 leaves them to the engine. Port and key are Nomad's."""
    args = ["--model", files.model, "--alias", alias, "--host", bind, "--port", port]
    args += memory_args(settings, offloaded=bool(offload.layers))
    args += offload_args(offload)
    if files.projector:
        args += ["--mmproj", files.projector]
        if not offload.names:
            args.append("--no-mmproj-offload")
    if files.adapters:
        args += ["--lora", ",".join(files.adapters), "--lora-init-without-apply"]
    if files.slot_save_dir:
        args += ["--slot-save-path", files.slot_save_dir]
    if files.tls_cert:
        args += ["--ssl-cert-file", files.tls_cert, "--ssl-key-file", files.tls_key]
    if embedding:
        args.append("--embedding")
    if chat_template:
        args += ["--chat-template", chat_template]
    args += ["--api-key-file", key_file, "--metrics", "--no-ui", "--offline"]
    args += ["--log-verbosity", START_LOG_VERBOSITY]
    if threads:
        args += ["--threads", str(threads)]
    if temperature is not None:
        args += ["--temp", str(temperature)]
    return args


def rpc_worker_args(bind: str, port: str, names: Sequence[str], threads: int) -> list[str]:
    """Return the arguments of `ggml-rpc-server`, as in its `--help` of version 0.7.0; no `names`: the processor."""
    devices = ",".join(names) or "CPU"
    return ["--host", bind, "--port", port, "--threads", str(max(1, threads)), "--device", devices]
