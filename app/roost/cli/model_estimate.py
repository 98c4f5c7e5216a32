"""`roost models estimate`: what a server of a model would need on each device, before a byte of it is downloaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic import ValidationError

from roost.cli.show import print_json, print_table, size
from roost.fleet.artifacts.from_site import site_choices, site_variables
from roost.models.catalogue import load_catalogue
from roost.models.estimate.header import estimate_header
from roost.models.estimate.hyperparameters import hyperparameters
from roost.models.estimate.known import CatalogueHeaders
from roost.models.estimate.measured import MeasuredStore
from roost.models.footprint import CacheType, DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.models.gguf_header import Header
from roost.models.gguf_read import header_of_file, header_of_url
from roost.models.source_types import HubSource
from roost.ops.errors import RoostError
from roost.ops.fetch import Fetcher
from roost.ops.site import load_site

CACHE_TYPES = get_args(CacheType)
USAGE = 2


@dataclass(frozen=True)
class Found:
    """A model that was named: its header, where that comes from, and its hash if its file is known."""

    header: Header
    source: str
    sha256: str = ""


def estimate_model(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME[:QUANT]|FILE|URL|hf:OWNER/NAME:FILE", help="A model of the catalogue, or where one is."
        ),
    ],
    *,
    context: Annotated[int, typer.Option("--context", min=256, help="Tokens of one request.")] = 8192,
    parallel: Annotated[int, typer.Option("--parallel", min=1, max=64, help="Requests at the same time.")] = 1,
    cache_type: Annotated[
        str, typer.Option("--cache-type", help=f"Type of the cache of keys and values: {', '.join(CACHE_TYPES)}.")
    ] = "f16",
    unified: Annotated[bool, typer.Option("--kv-unified", help="One cache that all requests share.")] = False,
    flash_attention: Annotated[bool, typer.Option("--flash-attention/--no-flash-attention")] = True,
    ubatch: Annotated[int, typer.Option("--ubatch", min=1, help="Tokens that are computed at once.")] = 512,
    gpu_layers: Annotated[
        str, typer.Option("--gpu-layers", metavar="N[,N…]", help="Layers on each graphics processor; `all` on one.")
    ] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a server of a model needs on each device, and where each figure comes from.

    Only the header is read: by range requests, under 20 MB even of a model of 40 GB. Figures that this host's engine
    said of the same file and settings go before computed ones.

    Example: roost models estimate qwen3-8b:Q4_K_M --context 32768 --gpu-layers all
    """
    if cache_type not in CACHE_TYPES:
        raise RoostError(f"{cache_type!r} is no cache type.", fix=f"Use {', '.join(CACHE_TYPES)}.", exit_code=USAGE)
    kind: CacheType = next(known for known in CACHE_TYPES if known == cache_type)
    settings = ServerSettings(context, parallel, unified, kind, kind, flash_attention, ubatch=ubatch)
    settings = replace(settings, batch=max(settings.batch, ubatch))
    found = find_model(what)
    shape = hyperparameters(found.header)
    split = _split(gpu_layers, shape.layer_count + 1)
    estimates = [estimate_header(found.header, settings, split), *_kept(found, settings, split)]
    best = estimates[-1]
    if as_json:
        print_json(
            {
                "model": what, "header": found.source, "transferred_bytes": found.header.read_bytes,
                "architecture": shape.architecture, "layers": shape.layer_count + 1, "origin": best.origin,
                "settings": asdict(settings), "devices": [_document(device) for device in best.devices],
                "estimates": [{"origin": e.origin, "devices": [_document(d) for d in e.devices]} for e in estimates],
            }
        )  # fmt: skip
        return
    print(f"{what}: {shape.architecture}, {shape.layer_count} layers and the output; header from {found.source}.")
    heads = ["device", "total", "weights", "cache", "compute", "output", "other", "known from"]
    print_table(heads, [_row(device, estimate) for estimate in reversed(estimates) for device in estimate.devices])


def find_model(what: str) -> Found:
    """Return the model that a user named.

    Raises:
        RoostError: there is none, or its header cannot be read.
    """
    if what.startswith(("http://", "https://")):
        header = header_of_url(what, Fetcher(extra_ca()))
        return Found(header, f"the server, {size(header.read_bytes)} transferred")
    if what.startswith("hf:"):
        return _of_hub(what.removeprefix("hf:"))
    path = Path(what).expanduser()
    if what.endswith(".gguf") or path.is_file():
        return Found(header_of_file(path), f"the file {path}")
    site = load_site()
    catalogue = load_catalogue(site.catalogue)
    listed = catalogue.listed(what)
    headers = CatalogueHeaders(catalogue, site.models_dir)
    here = headers.file(listed.name, listed.quantisation)
    source = f"the file {here}" if here else "the shape in the catalogue"
    return Found(headers(listed.name, listed.quantisation), source, listed.file.sha256 or "")


def _of_hub(reference: str) -> Found:
    from roost.models.hub import ask, default_hub  # takes a second

    repository, _, file = reference.partition(":")
    try:
        source = HubSource(kind="hub", repository=repository, file=file)
    except ValidationError:
        source = None
    if source is None or not file.endswith(".gguf"):
        raise RoostError(
            f"hf:{reference} is not hf:OWNER/NAME:FILE.gguf.",
            fix="For example hf:Qwen/Qwen3-8B-GGUF:Qwen3-8B-Q4_K_M.gguf.",
            exit_code=USAGE,
        )
    hub = default_hub(extra_ca())
    header = header_of_url(ask(source, hub).url, Fetcher(extra_ca(), hub.token))
    return Found(header, f"the hub, {size(header.read_bytes)} transferred")


def extra_ca() -> Path | None:
    """Return the installation's further CA; where nothing is installed there is none."""
    try:
        site = load_site()
    except RoostError:
        return None
    return site_choices(site, site_variables(site)).extra_ca_bundle


def _split(text: str, layers: int) -> LayerSplit:
    if text == "all":
        return LayerSplit((0,), (layers,))
    parts = text.split(",")
    if not all(part.isdigit() for part in parts):
        raise RoostError(
            f"{text!r} is no number of layers.", fix="Use a number, several with commas, or all.", exit_code=USAGE
        )
    counts = tuple(int(part) for part in parts)
    return LayerSplit(tuple(range(len(counts))), counts) if any(counts) else LayerSplit()


def _kept(found: Found, settings: ServerSettings, split: LayerSplit) -> list[Estimate]:
    """Return what this host's engine said of the same file and settings, whatever its build."""
    if not found.sha256:
        return []
    return MeasuredStore(load_site().state_dir).find(found.sha256, settings, split)


def _document(device: DeviceBytes) -> dict[str, object]:
    return {**asdict(device), "total": device.total}


def _row(device: DeviceBytes, estimate: Estimate) -> tuple[object, ...]:
    parts = (device.total, device.weights, device.kv, device.compute, device.output, device.other)
    return (device.device, *(size(part) for part in parts), estimate.origin)
