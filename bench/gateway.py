"""What Roost costs on the way: first token and tokens/s through it against the bare model server, and its memory; what
it adds under load and how much it carries, beside LiteLLM (bench/added.py).

Both ways are measured in turn in one run, so that what else the machine does hits both. Two model servers: the real
one, and a scripted one whose tokens cost nothing and come at a fixed pace, so that only the way is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.support.engine import ENGINE_KEY, llama_server
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import wait_until

from bench import added
from bench.results import ROOT, save

MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Tell a long story about a heron."},
]
MAX_FEWER_TOKENS_PERCENT = 3.0
MAX_LATER_FIRST_TOKEN_MS = 5.0
MAX_RSS_MB = 150.0
LEAST_TIMES_LITELLM = 10.0
AT_MOST = (
    ("added at half of saturation, median, ms", "added_median_ms", 1.0),
    ("added at half of saturation, p99, ms", "added_p99_ms", 5.0),
    ("first byte of 200 streams later, ms", "stream_first_byte_later_ms", 2.0),
    ("gap between chunks added, p99, ms", "stream_gap_added_p99_ms", 5.0),
    ("memory of the gateway after use, MB", "gateway_rss_mb", 90.0),
)


@dataclass(frozen=True)
class Sample:
    """One streamed answer: milliseconds to its first token, and tokens per second after that."""

    first_ms: float
    tokens_per_s: float


@dataclass(frozen=True)
class Way:
    """Where to ask, and with which key."""

    port: int
    key: str


def ask(way: Way, tokens: int) -> Sample:
    """Stream an answer of `tokens` tokens over a fresh connection."""
    connection = http.client.HTTPConnection("127.0.0.1", way.port, timeout=600)
    connection.connect()
    body = json.dumps(
        {"messages": MESSAGES, "stream": True, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    )
    started = time.perf_counter()
    headers = {"Authorization": f"Bearer {way.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    at: list[float] = []
    while line := answer.readline():
        if b'"content":"' in line or b'"content": "' in line:
            at.append(time.perf_counter())
    connection.close()
    return Sample((at[0] - started) * 1000, (len(at) - 1) / (at[-1] - at[0]))


def compare(bare_way: Way, roost_way: Way, *, rounds: int, tokens: int) -> dict[str, float]:
    """Ask both ways in turn, `rounds` times each, beginning with the other one each time; returns medians.

    What Roost costs is the median over the pairs asked one after the other: what disturbs both of a pair counts less.
    """
    ways = {"bare": bare_way, "roost": roost_way}
    found: dict[str, list[Sample]] = {name: [] for name in ways}
    for name in ways:
        ask(ways[name], tokens)
    for number in range(rounds):
        for name in sorted(ways, reverse=number % 2 == 0):
            found[name].append(ask(ways[name], tokens))
    pairs = list(zip(found["bare"], found["roost"], strict=True))
    later = statistics.median(roost.first_ms - bare.first_ms for bare, roost in pairs)
    ratio = statistics.median(roost.tokens_per_s / bare.tokens_per_s for bare, roost in pairs)
    first = {name: statistics.median(s.first_ms for s in samples) for name, samples in found.items()}
    speed = {name: statistics.median(s.tokens_per_s for s in samples) for name, samples in found.items()}
    return {
        "bare_first_token_ms": round(first["bare"], 2),
        "roost_first_token_ms": round(first["roost"], 2),
        "first_token_later_ms": round(later, 2),
        "bare_tokens_per_s": round(speed["bare"], 2),
        "roost_tokens_per_s": round(speed["roost"], 2),
        "tokens_per_s_fewer_percent": round(100 * (1 - ratio), 2),
    }


# --- The scripted model server ---------------------------------------------------------------------------------


def _event(word: str) -> bytes:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "paced"}
    choice = {"index": 0, "finish_reason": None, "delta": {"content": word}}
    return b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"


def _paced_app(per_second: float) -> web.Application:
    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "paced", "meta": {"n_ctx": 4096}}]})

    async def chat(request: web.Request) -> web.StreamResponse:
        wanted = await request.json()
        if not wanted.get("stream"):
            return web.json_response({"choices": []})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        loop = asyncio.get_running_loop()
        due = loop.time()
        for _ in range(wanted["max_tokens"]):
            await answer.write(_event(" word"))
            due += 1 / per_second
            await asyncio.sleep(max(0.0, due - loop.time()))
        await answer.write(b"data: [DONE]\n\n")
        return answer

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    return app


async def _serve_paced(port_to: Connection, per_second: float) -> None:
    runner = web.AppRunner(_paced_app(per_second))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port_to.send(runner.addresses[0][1])
    await asyncio.Event().wait()


def _paced_process(port_to: Connection, per_second: float) -> None:
    asyncio.run(_serve_paced(port_to, per_second))


@contextmanager
def paced_server(per_second: float) -> Iterator[int]:
    """Run the scripted model server in a process of its own; yields its port."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_paced_process, args=(there, per_second), daemon=True)
    process.start()
    there.close()  # so that its end there ends the waiting here
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


# --- The run ---------------------------------------------------------------------------------------------------


@contextmanager
def roost_before(folder: Path, engine_port: int, key: str) -> Iterator[Service]:
    """Run the service in front of one model server."""
    key_file = folder / "key-of-engine"
    key_file.write_text(key)
    environment = {
        "ROOST_API_KEYS_FILE": str(write_keys(folder)),
        "ROOST_ENGINE_KEY_FILE": str(key_file),
        "ROOST_STATIC_ENDPOINTS": f"http://127.0.0.1:{engine_port}",
    }
    with service(folder, environment) as running:
        wait_until(lambda: '"state": "ready"' in running.log.read_text(), 60, "the model to be routable")
        yield running


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise RuntimeError("the service is gone")


def measure(folder: Path, *, rounds: int, tokens: int, pace: float) -> dict[str, Any]:
    """Measure both model servers; returns the figures."""
    found: dict[str, Any] = {"rounds": rounds, "tokens_per_answer": tokens}
    with paced_server(pace) as port, roost_before(folder, port, "") as roost:
        paced = compare(Way(port, ""), Way(roost.port, API_KEY), rounds=rounds, tokens=tokens)
        found |= {f"paced_{name}": value for name, value in paced.items()}
    with llama_server(folder) as engine, roost_before(folder, engine.port, ENGINE_KEY) as roost:
        real = compare(Way(engine.port, ENGINE_KEY), Way(roost.port, API_KEY), rounds=rounds, tokens=tokens)
        found |= {f"real_{name}": value for name, value in real.items()}
        found["roost_rss_mb"] = rss_mb(roost.process.pid)
    (folder / "added").mkdir()
    return found | added.measure(folder / "added")


@dataclass(frozen=True)
class Verdict:
    """A target and whether it was met."""

    target: str
    measured: float
    limit: float
    met: bool


def verdicts(found: dict[str, Any]) -> list[Verdict]:
    """Judge the figures."""
    wanted: Sequence[tuple[str, str, float]] = (
        ("first token later, ms (paced)", "paced_first_token_later_ms", MAX_LATER_FIRST_TOKEN_MS),
        ("fewer tokens/s, % (paced)", "paced_tokens_per_s_fewer_percent", MAX_FEWER_TOKENS_PERCENT),
        ("first token later, ms (real)", "real_first_token_later_ms", MAX_LATER_FIRST_TOKEN_MS),
        ("fewer tokens/s, % (real)", "real_tokens_per_s_fewer_percent", MAX_FEWER_TOKENS_PERCENT),
        ("memory of the service, MB", "roost_rss_mb", MAX_RSS_MB),
        *AT_MOST,
    )
    times = found["times_litellm"]
    return [
        *(Verdict(text, found[name], limit, met=found[name] <= limit) for text, name, limit in wanted),
        Verdict("requests/s, times LiteLLM's", times, LEAST_TIMES_LITELLM, met=times >= LEAST_TIMES_LITELLM),
    ]


def show(found: dict[str, Any], write: Callable[[str], object]) -> None:
    """Print the figures as JSON and the targets as a table."""
    write(json.dumps({**found, "verdicts": [asdict(verdict) for verdict in verdicts(found)]}, indent=2) + "\n")
    for verdict in verdicts(found):
        state = "met" if verdict.met else "MISSED"
        bound = "at least" if "LiteLLM" in verdict.target else "at most "
        write(f"{verdict.target:<40} {verdict.measured:>8.2f}  {bound} {verdict.limit:>6.2f}  {state}\n")


def main() -> None:
    """Measure, print, save; exit 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="bench.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="answers each way")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--pace", type=float, default=150.0, help="tokens/s of the scripted model server")
    parser.add_argument("--no-save", action="store_true", help="write no file under bench/results")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), rounds=chosen.rounds, tokens=chosen.tokens, pace=chosen.pace)
    show(found, sys.stdout.write)
    if not chosen.no_save:
        sys.stdout.write(f"{save('gateway', found).relative_to(ROOT)}\n")
    sys.exit(0 if all(verdict.met for verdict in verdicts(found)) else 1)


if __name__ == "__main__":
    main()
