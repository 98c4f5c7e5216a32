"""Downloads that are killed again and again: `PYTHONPATH=app:. python tests/support/killed.py 500`."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import yaml

from roost.models.catalogue import load_catalogue
from roost.models.fetch import Places
from tests.support.fetching import ensure_model
from tests.support.hub_server import FILE, REPOSITORY, HubState, hub
from tests.support.net import wait_until

BYTES_PER_KILL = 48 << 10  # so much of the file for each, so that the last one finds it unfinished
SECONDS_PER_PIECE = 0.002
EARLY_S, LATE_S = 0.08, 0.03  # kills come at most so long after the start, or after the first byte of a life
EARLY_EVERY = 5
PRELOADED = ["roost.models.hub", "roost.models.fetch", "tests.support.killed"]


@dataclass(frozen=True)
class Kills:
    """What came of it. `twice`: for each life how many bytes it was sent that an earlier one had been sent already."""

    kills: int
    finished: int  # lives that were done before their kill
    corrupt: int  # visible files with wrong bytes
    whole: bool  # whether the last download, left alone, is right
    twice: list[int]
    received: int  # bytes sent to all lives before the last one


def write_catalogue(folder: Path, file: dict[str, object]) -> Path:
    """Write a catalogue with the model `tiny` of the hub; return its path."""
    content = {
        "title": "Tiny", "licence": "CC0-1.0", "architecture": "llama", "parameters": {"total": 1, "active": 1},
        "context_length": 128, "roles": {"main": 10}, "tier": "potato",
        "quantisations": {
            "Q4_K_M": {
                "file": {"name": "tiny.gguf", **file},
                "sources": [{"kind": "hub", "repository": REPOSITORY, "file": FILE}],
            }
        },
    }  # fmt: skip
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": {"tiny": content}}))
    return path


def visible(places: Places) -> list[Path]:
    """Return the files that a model server could open."""
    return [p for p in places.models_dir.glob("*/*") if not p.name.startswith(".")]


def pull(catalogue: Path, models_dir: Path, cache_dir: Path) -> None:
    """Fetch the model; runs in a process that will be killed."""
    ensure_model("tiny", load_catalogue(catalogue).get("tiny"), Places(models_dir, cache_dir))


def chance(number: int) -> float:
    """Return a number from 0 to 1, the same in every run."""
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:4]) / (1 << 32)


def kill_downloads(wanted: int, folder: Path) -> Kills:
    """Kill `wanted` downloads of one file, then let one live. HF_ENDPOINT is set to a hub made for it."""
    content = hashlib.shake_256(b"killed").digest(wanted * BYTES_PER_KILL)
    sha256 = hashlib.sha256(content).hexdigest()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    places = Places(folder / "models", folder / "cache")
    catalogue = write_catalogue(folder, {"bytes": len(content), "sha256": sha256})
    kills = finished = corrupt = 0
    with hub(content) as server:
        os.environ["HF_ENDPOINT"] = server.hub_url
        server.seconds_per_piece = SECONDS_PER_PIECE
        while kills < wanted:
            child = context.Process(target=pull, args=(catalogue, places.models_dir, places.cache_dir))
            child.start()
            if _killed(child, server, kills):
                kills += 1
            corrupt += sum(hashlib.sha256(path.read_bytes()).hexdigest() != sha256 for path in visible(places))
            if child.exitcode == 0:  # once more from the start
                finished += 1
                shutil.rmtree(places.models_dir)
                shutil.rmtree(places.cache_dir)
                server.sent.clear()
        received = sum(sent.count for sent in server.sent)
        server.seconds_per_piece = 0.0
        pull(catalogue, places.models_dir, places.cache_dir)
        whole = [path.read_bytes() == content for path in visible(places)] == [True]
        return Kills(kills, finished, corrupt, whole, _twice(server), received)


def _killed(child: ForkServerProcess, server: HubState, number: int) -> bool:
    """Kill the child at its moment; say whether it was still alive."""
    if number % EARLY_EVERY:
        wait_until(lambda: server.active > 0 or not child.is_alive(), 30, "a byte", step_s=0.001)
    child.join(chance(number) * (LATE_S if number % EARLY_EVERY else EARLY_S))
    alive = child.is_alive()
    child.kill()
    child.join()
    wait_until(lambda: not server.active, 30, "the server to see it", step_s=0.001)
    return alive


def _twice(server: HubState) -> list[int]:
    end = 0
    twice = []
    for sent in server.sent:
        twice.append(max(0, end - sent.start))
        end = sent.start + sent.count
    return twice


if __name__ == "__main__":
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        result = kill_downloads(int(sys.argv[1]), Path(made))
    print(
        f"{result.kills} kills in {time.monotonic() - began:.0f} s, {len(result.twice)} lives that received bytes, "
        f"{result.corrupt} corrupt files seen, whole at the end: {result.whole}; "
        f"sent twice: at most {max(result.twice)} bytes a life, {sum(result.twice)} in all"
    )
