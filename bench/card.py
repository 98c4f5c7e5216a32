"""What a graphics processor of this machine holds and gives, beside what Roost says of it before.

All layers of published shapes are on the first card. Three things are compared with the estimate:

- projected: what the engine's server computes before it takes any memory, over a grid of settings (sparse files)
- loaded: the buffers that its log names once it serves (files of true size with random weights), and what the driver
  counts beside these
- speed: tokens/s of one request and of all slots at once, beside what the card's memory allows

Writes the second table of docs/memory-estimate.md; ends with 1 where a limit is broken. On a machine that has the card
but no checkout of one's own: `--output FILE` there, `--take FILE` here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from tests.support.engine import engine_tree
from tests.support.engine_card import MIB, Card, Loaded, Projected, loaded, projected
from tests.support.gguf_blocks import write_blocks
from tests.support.gguf_files import write_sparse
from tests.support.model_shapes import PUBLISHED, Published

from bench.estimate import BELOW_LIMIT_PERCENT, PAGE, PART_LIMIT_PERCENT, TOTAL_LIMIT_MIB, TOTAL_LIMIT_PERCENT
from bench.results import ROOT, machine, save
from bench.table import replace
from roost.fleet.artifacts.engine import engine_command
from roost.fleet.devices import access, backend_for, devices_of
from roost.fleet.engine_start import read_start
from roost.fleet.job_memory import measured_devices
from roost.hosts import gpu_nvidia
from roost.hosts.card_bandwidth import published_card_gbs
from roost.hosts.collect import ASK_TIMEOUT_S, NVIDIA_QUESTIONS, collect
from roost.hosts.gpus import Gpu
from roost.models.estimate.header import estimate_header
from roost.models.estimate.hyperparameters import hyperparameters
from roost.models.estimate.shape import header_of_shape
from roost.models.footprint import HOST, CacheType, DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.models.gguf_header import Header
from roost.models.gguf_read import header_of_file
from roost.ops.errors import RoostError
from roost.ops.run import run

ON_CARD = "GPU0"
WORKERS = 12  # measuring phases at once; they take no memory of the card but the driver's
POLL_S = 0.05
PROMPT, ANSWER = 512, 128  # tokens of a request
LOADS: tuple[tuple[str, tuple[ServerSettings, ...]], ...] = (
    ("llama-3.2-1b", (ServerSettings(8192, 4), ServerSettings(32768, 2, cache_type_k="q8_0", cache_type_v="q8_0"))),
    ("llama-3.1-8b", (ServerSettings(8192, 4), ServerSettings(131072))),
    ("qwen3-8b", (ServerSettings(16384, 4), ServerSettings(32768, 2, cache_type_k="q4_0", cache_type_v="q4_0"))),
    ("gpt-oss-20b", (ServerSettings(16384, 4),)),
    ("gemma-3-27b", (ServerSettings(16384, 4),)),
    ("qwen3-30b-a3b", (ServerSettings(16384, 4), ServerSettings(32768, 4, ubatch=2048))),
    ("qwen3.5-27b", (ServerSettings(32768, 2),)),
)


@dataclass(frozen=True)
class Off:
    """How far the estimate of one setting is from the truth, on the card and of what is computed beside it in MiB."""

    settings: str
    weights_percent: float
    kv_percent: float
    total_percent: float
    compute_mib: float
    host_compute_mib: float
    truth_mib: int
    broken: bool


@dataclass(frozen=True)
class Load:
    """One server with its model on the card, in MiB: estimated buffers, the log's, and what the driver counts.

    `used_start` once it is ready, `used_most` while it answers; both without what was used before.
    """

    model: str
    settings: str
    estimated: int
    buffers: int
    kv: int
    compute: int
    used_start: int
    used_most: int
    seconds_to_ready: float
    prompt_tokens_s: float
    answer_tokens_s: float
    all_answer_tokens_s: float
    at_most_tokens_s: float


def grid() -> Iterator[ServerSettings]:
    """Yield the settings of the projected part."""
    for context, slots, ubatch, flash in itertools.product((4096, 32768), (1, 4), (512, 2048), (True, False)):
        yield ServerSettings(context, slots, flash_attention=flash, ubatch=ubatch)
    kinds: tuple[CacheType, ...] = ("q8_0", "q4_0")
    for kind, slots in itertools.product(kinds, (1, 4)):
        yield ServerSettings(16384, slots, cache_type_k=kind, cache_type_v=kind)
    yield ServerSettings(16384, 4, kv_unified=True)


def words(settings: ServerSettings) -> str:
    """Write a setting in short."""
    more = "" if settings.flash_attention else " no-fa"
    more += " unified" if settings.kv_unified else ""
    more += "" if settings.cache_type_k == "f16" else f" {settings.cache_type_k}"
    more += "" if settings.ubatch == ServerSettings.ubatch else f" ub{settings.ubatch}"
    return f"{settings.context_size}x{settings.parallel}{more}"


def on_card(header: Header, settings: ServerSettings) -> tuple[Estimate, int]:
    """Return the estimate with all layers on the card, and how many these are."""
    layers = hyperparameters(header).layer_count + 1
    return estimate_header(header, settings, LayerSplit((0,), (layers,))), layers


def off(settings: ServerSettings, guess: Estimate, true: Projected) -> Off:
    """Compare an estimate with what the engine says; its weights are known to the MiB."""
    card = guess.on(ON_CARD)
    total = card.total - card.other
    error = total - true.total
    weights = card.weights - true.weights
    kv = 100 * (card.kv - true.kv) / true.kv if true.kv else 0.0
    high = max(TOTAL_LIMIT_PERCENT / 100 * true.total, TOTAL_LIMIT_MIB * MIB)
    # without flash attention a Vulkan driver's limits decide what is computed where: told, and held to nothing
    broken = settings.flash_attention and (
        abs(kv) > PART_LIMIT_PERCENT
        or abs(weights) > PART_LIMIT_PERCENT / 100 * true.weights + 2 * MIB
        or not -BELOW_LIMIT_PERCENT / 100 * true.total <= error <= high
    )
    return Off(
        words(settings), round(100 * weights / true.weights, 3), round(kv, 3), round(100 * error / true.total, 2),
        round((card.compute - true.compute) / MIB, 1), round((guess.on(HOST).compute - true.host_compute) / MIB, 1),
        true.total // MIB, broken,
    )  # fmt: skip


def project(card: Card, published: Published, folder: Path, settings: Sequence[ServerSettings]) -> list[Off]:
    """Compare one shape over the settings."""
    path = folder / f"{published.name}.gguf"
    write_sparse(header_of_shape(published.architecture, published.shape, published.quantisation), path)
    header = header_of_file(path)
    found: list[Off] = []
    for one in settings:
        try:
            guess, layers = on_card(header, one)
            found.append(off(one, guess, projected(card, path, one, layers, os.environ)))
        except (RoostError, AssertionError) as error:
            print(f"{published.name} {words(one)}: {error}", file=sys.stderr)
    return found


def load(card: Card, published: Published, path: Path, settings: ServerSettings, gbs: float) -> Load:
    """Start a server for good, let it answer, and say what it took.

    Raises:
        RuntimeError: it ended, or did not answer.
    """
    header = header_of_file(path)
    guess, layers = on_card(header, settings)
    estimated = guess.on(ON_CARD)
    before = card.used_mib()
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as place,
        loaded(card, path, settings, layers, Path(place), os.environ) as server,
    ):
        ready = time.monotonic() - started
        used_start = card.used_mib() - before
        start = read_start(server.log.read_text(errors="replace"))
        devices = measured_devices(start, LayerSplit((0,), (layers,))) if start else None
        if devices is None:
            raise RuntimeError(f"the log of {published.name} does not say what lies where")
        taken = devices[1]
        with watching(card.used_mib) as most:
            alone = answer(server, published, 1)
            together = answer(server, published, settings.parallel)
        used_most = max(most) - before
    return Load(
        published.name, words(settings), (estimated.total - estimated.other) // MIB, taken.total // MIB,
        taken.kv // MIB, taken.compute // MIB, used_start, used_most, round(ready, 1), alone[0], alone[1], together[1],
        round(gbs * 1e9 / read_bytes(header, estimated), 1) if gbs else 0.0,
    )  # fmt: skip


def read_bytes(header: Header, estimated: DeviceBytes) -> int:
    """Return the bytes of weights on the card that one token reads: of experts those that are used."""
    shape = hyperparameters(header)
    experts = sum(tensor.bytes for tensor in header.tensors if "_exps." in tensor.name)
    used = shape.experts_used / shape.experts if shape.experts else 1.0
    return round(estimated.weights - experts * (1 - used))


@contextmanager
def watching(used: Callable[[], int]) -> Iterator[list[int]]:
    """Ask for the used memory again and again until the context ends."""
    seen, ended = [used()], threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_S):
            seen.append(used())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def answer(server: Loaded, published: Published, requests: int) -> tuple[float, float]:
    """Send so many requests at once; return tokens/s of their prompts and of their answers, each request's added up.

    Raises:
        RuntimeError: one was not answered.
    """
    size = published.shape["vocab_size"]
    assert isinstance(size, int)

    def one(number: int) -> tuple[float, float]:
        prompt = [300 + (number * 7919 + place * 104729) % (size - 300) for place in range(PROMPT)]
        body = {"prompt": prompt, "n_predict": ANSWER, "ignore_eos": True, "cache_prompt": False, "temperature": 1.0}
        status, data = server.ask("POST", "/completion", body)
        if status != HTTPStatus.OK:
            raise RuntimeError(f"{published.name} answered {status}: {data[:200]!r}")
        timings = json.loads(data)["timings"]
        return float(timings["prompt_per_second"]), float(timings["predicted_per_second"])

    with ThreadPoolExecutor(requests) as pool:
        found = list(pool.map(one, range(requests)))
    return round(sum(prompt for prompt, _ in found), 1), round(sum(tokens for _, tokens in found), 1)


def first_gpu() -> Gpu:
    """Return the first graphics processor with memory of its own.

    Raises:
        RoostError: there is none.
    """
    for gpu in collect().gpus:
        if gpu.memory_mib and not gpu.integrated:
            return gpu
    raise RoostError("This machine has no graphics processor with memory of its own.", fix="See `roost hosts`.")


def used_of(slot: str) -> int:
    """Return how many MiB of a card's memory are held now; NVIDIA's tool alone is asked where it is there."""
    if shutil.which("nvidia-smi"):
        found = gpu_nvidia.used(run(NVIDIA_QUESTIONS["nvidia-smi used"], timeout_s=ASK_TIMEOUT_S))
        if slot in found:
            return found[slot]
    return next((gpu.used_mib for gpu in collect().gpus if gpu.slot == slot), 0)


def card_of(gpu: Gpu, server: Path | None, backend: str) -> Card:
    """Return the card for the engine of Roost, or for a `server` of one's own that computes by `backend`."""
    devices = devices_of([asdict(other) for other in collect().gpus])
    index = next(device.index for device in devices if device.slot == gpu.slot)
    if server is not None:
        names = access(devices, (index,), "cuda" if backend == "cuda" else "vulkan", container=False)
        command: tuple[str, ...] = (str(server),)
        folder = server.parent
    else:
        defaults = yaml.safe_load((ROOT / "group_vars" / "all.yaml").read_text())
        packages = defaults["engine_gpu_packages"][gpu.vendor]
        given = os.environ.get("ROOST_TEST_ENGINE_TREE")
        tree = Path(given) if given else engine_tree(*packages)
        kind = backend_for(gpu.vendor, packages, cuda=False)
        names = access(devices, (index,), kind, container=False, tree=str(tree))
        argv, folder = engine_command(tree)
        command = tuple(argv)
    return Card(gpu.name, names.names[0], command, folder, dict(names.env), lambda: used_of(gpu.slot))


def measure(
    card: Card, gpu: Gpu, chosen: set[str], keep: Callable[[dict[str, Any]], None], *, quick: bool, most_s: float
) -> dict[str, Any]:
    """Measure everything, loads as long as `most_s` seconds allow; a model that fails is named and left out.

    `keep` is given all that is known so far after each step.
    """
    by_name = {published.name: published for published in PUBLISHED}
    names = [name for name in by_name if not chosen or name in chosen]
    gbs = published_card_gbs(gpu.vendor, gpu.name, gpu.memory_mib) or 0.0
    found: dict[str, Any] = {
        "card": gpu.name, "memory_mib": gpu.memory_mib, "driver": collect().nvidia.driver, "bandwidth_gbs": gbs,
        "engine_name": card.engine_name, "failed": [], "projected": {}, "loads": [],
    }  # fmt: skip
    began = time.monotonic()
    settings = list(grid())[::6] if quick else list(grid())
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        compared = pool.map(lambda name: project(card, by_name[name], Path(folder), settings), names)
        for name, several in zip(names, compared, strict=True):
            found["projected"][name] = [asdict(one) for one in several]
            if len(several) < len(settings):
                found["failed"].append(f"{name}: {len(settings) - len(several)} settings")
            keep(found)
    print(f"projected in {time.monotonic() - began:.0f} s", flush=True)
    for name, started in LOADS:
        if name not in names or time.monotonic() - began > most_s:
            continue
        published = by_name[name]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.gguf"
            header = header_of_shape(published.architecture, published.shape, published.quantisation)
            write_blocks(header, path, int(str(published.shape["vocab_size"])))
            for one in started[:1] if quick else started:
                try:
                    done = load(card, published, path, one, gbs)
                    found["loads"].append(asdict(done))
                    print(done, flush=True)
                except (RoostError, RuntimeError, AssertionError) as error:
                    found["failed"].append(f"{name} {words(one)}: {error}")
                    print(found["failed"][-1], file=sys.stderr, flush=True)
                keep(found)
    return found


def table(found: dict[str, Any]) -> str:
    """Return the tables for the page."""
    driver = f", driver {found['driver']}" if found["driver"] else ""
    lines = [
        f"On one {found['card']}{driver}, all layers on it ({found['engine_name']}):\n",
        "| model | settings | cache, % | total, % (low … high) | compute, MiB (low … high) | broken | no flash, % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, several in found["projected"].items():
        flash = [one for one in several if "no-fa" not in one["settings"]]
        if flash:
            total, compute = ([one[key] for one in flash] for key in ("total_percent", "compute_mib"))
            kv = max((one["kv_percent"] for one in flash), key=abs)
            plain = [one["total_percent"] for one in several if one not in flash]
            lines.append(
                f"| {name} | {len(flash)} | {kv:+.3f} | {min(total):+.2f} … {max(total):+.2f} "
                f"| {min(compute):+.1f} … {max(compute):+.1f} | {sum(one['broken'] for one in flash)} "
                f"| {f'{min(plain):+.1f} … {max(plain):+.1f}' if plain else ''} |"
            )
    lines += [
        "\nLoaded for good; MiB on the card. *beside*: what the driver counts more than the log's buffers, at most:\n",
        "| model | context x slots | estimated | log | driver, ready | driver, most | beside |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one['model']} | {one['settings']} | {one['estimated']} | {one['buffers']} | {one['used_start']} "
        f"| {one['used_most']} | {one['used_most'] - one['buffers']} |"
        for one in found["loads"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, save; exit 1 if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="published shapes; all if none")
    parser.add_argument("--quick", action="store_true", help="a part of the grid, one setting for each load")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no load is begun later")
    parser.add_argument("--server", type=Path, help="a llama-server of your own instead of Roost's")
    parser.add_argument("--backend", choices=("vulkan", "cuda"), default="vulkan", help="what that one computes by")
    parser.add_argument("--output", type=Path, help="write what was measured here, and change nothing in the checkout")
    parser.add_argument("--take", type=Path, help="take what --output wrote on another machine, and measure nothing")
    given = parser.parse_args()
    if given.take:
        document = json.loads(given.take.read_text())
    else:
        try:
            gpu = first_gpu()
            card = card_of(gpu, given.server, given.backend)
        except RoostError as error:
            sys.exit(str(error))
        described = machine()

        def keep(found: dict[str, Any]) -> None:
            if given.output:
                given.output.write_text(json.dumps({"machine": described, "measured": found}, indent=1) + "\n")

        found = measure(card, gpu, set(given.models), keep, quick=given.quick, most_s=given.seconds)
        document = {"machine": described, "measured": found}
    measured = document["measured"]
    if not given.output and not given.models:
        save("card", measured, on=document["machine"])
        PAGE.write_text(replace(PAGE.read_text(), table(measured), part="card"))
    broken = [one for several in measured["projected"].values() for one in several if one["broken"]]
    print(table(measured))
    sys.exit(1 if broken or measured["failed"] else 0)


if __name__ == "__main__":
    main()
