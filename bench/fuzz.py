"""100,000 malformed requests to the service as a process: what it answered, and what of it stayed behind.

Ours, and those that schemathesis makes of the OpenAPI document.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from tests.support.fakes import fake_engine
from tests.support.fuzz import Fuzzed, fuzz, malformed
from tests.support.fuzz_schema import from_document
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import eventually

from bench.added import tree_rss_mb
from bench.results import ROOT, save

MAX_GROWTH_MB = 5.0
EACH = 100  # requests that schemathesis makes for an operation
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "?"}]}
ROUND = 10_000
ERRORS = ('"level": "error"', '"level": "critical"')


def left_behind(running: Service) -> tuple[float, int]:
    """Return the memory of the service in MB and its open files."""
    return tree_rss_mb(running.process.pid), len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))


async def answers(running: Service) -> bool:
    """Say whether a good request gets its answer."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.post(f"{running.url}/v1/chat/completions", json=QUESTION) as answer,
    ):
        return answer.status == 200


async def described(running: Service) -> dict[str, Any]:
    """Return the OpenAPI document."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.get(f"{running.url}/openapi.json") as answer,
    ):
        document: dict[str, Any] = await answer.json()
        return document


async def measure(folder: Path, requests: int) -> dict[str, Any]:
    """Send them; returns the figures. Memory is counted from when a tenth was sent: first uses cost some once."""
    key_file = folder / "engine-key"
    key_file.write_text("engine-key")
    async with fake_engine() as engine:
        environment = {
            "ROOST_API_KEYS_FILE": str(write_keys(folder)), "ROOST_ENGINE_KEY_FILE": str(key_file),
            "ROOST_STATIC_ENDPOINTS": engine.url,
        }  # fmt: skip
        with service(folder, environment, "gateway") as running:
            await eventually(lambda: answers(running), 30, "the model to be routable")
            schema = await asyncio.to_thread(from_document, await described(running), EACH)
            began, total = time.monotonic(), Fuzzed()
            total.add(await fuzz(running.port, malformed(1, requests // 10)))
            total.add(await fuzz(running.port, schema))
            memory, files = left_behind(running)
            rest = malformed(2, requests - requests // 10 - len(schema))
            while some := list(itertools.islice(rest, ROUND)):
                total.add(await fuzz(running.port, some))
                for kept in (engine.chats, engine.bodies, engine.headers, engine.asked):
                    kept.clear()
                sys.stdout.write(f"{total.sent.total()} sent, {left_behind(running)}\n")
            later_memory, later_files = left_behind(running)
            well = await answers(running)
            errors = [line for line in running.log.read_text().splitlines() if any(mark in line for mark in ERRORS)]
    for line in errors[:3]:
        sys.stdout.write(f"{line}\n")
    return {
        "requests": total.sent.total(), "of_schemathesis": len(schema), "seconds": round(time.monotonic() - began),
        **{f"answers_{status}": count for status, count in sorted(total.statuses.items())},
        "complete_without_answer": len(total.unanswered), "errors_logged": len(errors), "rss_mb": later_memory,
        "memory_grown_mb": round(later_memory - memory, 1), "files_more": later_files - files,
        "answers_500": total.statuses[500], "answers_afterwards": well,
    }  # fmt: skip


def main() -> None:
    """Send, print, save; exit 1 if a promise is broken."""
    parser = argparse.ArgumentParser(prog="bench.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--no-save", action="store_true", help="write no file under bench/results")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), chosen.requests))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if not chosen.no_save:
        sys.stdout.write(f"{save('fuzz', found).relative_to(ROOT)}\n")
    wrong = found["answers_500"] + found["complete_without_answer"] + found["errors_logged"]
    flat = found["memory_grown_mb"] <= MAX_GROWTH_MB and found["files_more"] <= 8
    sys.exit(0 if flat and not wrong and found["answers_afterwards"] else 1)


if __name__ == "__main__":
    main()
