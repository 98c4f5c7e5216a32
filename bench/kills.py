"""Two real model servers, one of them killed with `kill -9` every few seconds, under load through the gateway.

Every answer is asked for at temperature 0 and compared with the one that an undisturbed server gives. What differs is
put to an undisturbed server again, with the text up to the first difference: where the model itself is as good as
undecided between both ways to go on (batches of another size are summed in another order), nothing was lost or
repeated; anything else counts as corrupt.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from tests.support.engine import ENGINE_KEY, EngineProcess, llama_server, start_server
from tests.support.gateway import API_KEY, service, write_keys
from tests.support.net import free_port, wait_until

from bench.results import ROOT, save

SUBJECTS = ("a heron", "a lighthouse", "an old clock", "a river", "two brothers", "a long winter", "a train", "bread")
LONGEST_TOKEN = 12
ONE_THREAD = ("--threads", "1", "--threads-batch", "1")  # two servers on two cores; threads wait for each other in vain
UNDECIDED = 0.5  # of the logarithm of the probabilities of two tokens
START_TIMEOUT_S = 120.0
WAIT_S = 120.0  # four clients and, while one server starts, two slots: on a busy machine that takes its time


def question(subject: str, tokens: int) -> dict[str, Any]:
    """Return a request whose answer has exactly so many tokens."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": f"Tell a story about {subject}."},
    ]
    return {"messages": messages, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}


class Pair:
    """Two model servers at fixed ports, which come back when they are killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = (free_port(), free_port())
        self._engines = [start_server(folder, ONE_THREAD, port) for port in self.ports]
        self.kills = 0
        self.put_off = 0  # because the other one was not back yet

    def wait(self) -> None:
        """Wait until both answer."""
        wait_until(lambda: self._ready(0) and self._ready(1), START_TIMEOUT_S, "both model servers")

    def _ready(self, number: int) -> bool:
        return self._engines[number].get("/health")[0] == 200

    def kill(self, number: int) -> None:
        """Kill one if the other one could go on, and start it again."""
        if not self._ready(1 - number):
            self.put_off += 1
            return
        victim: EngineProcess = self._engines[number]
        os.kill(victim.process.pid, signal.SIGKILL)
        victim.process.wait()
        self.kills += 1
        self._engines[number] = start_server(self._folder, ONE_THREAD, self.ports[number])

    def end(self) -> None:
        """End both."""
        for engine in self._engines:
            engine.process.kill()
            engine.process.wait()


@contextmanager
def pair(folder: Path) -> Iterator[Pair]:
    """Run two model servers until the context ends."""
    both = Pair(folder)
    try:
        both.wait()
        yield both
    finally:
        both.end()


@dataclass
class Tally:
    """What clients got. `texts`: subject and text of each complete answer."""

    asked: int = 0
    failed: list[str] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    wrong_usage: int = 0


async def plain(session: aiohttp.ClientSession, url: str, subject: str, tokens: int, tally: Tally) -> None:
    """Ask for a whole answer."""
    tally.asked += 1
    try:
        async with session.post(f"{url}/v1/chat/completions", json=question(subject, tokens)) as answer:
            document = await answer.json()
    except (aiohttp.ClientError, OSError, ValueError) as error:
        tally.failed.append(repr(error))
        return
    if answer.status != 200:
        tally.failed.append(f"{answer.status} {document}")
        return
    tally.texts.append((subject, document["choices"][0]["message"]["content"]))
    tally.wrong_usage += document["usage"]["completion_tokens"] != tokens


async def streamed(session: aiohttp.ClientSession, url: str, subject: str, tokens: int, tally: Tally) -> None:
    """Ask for a stream; complete is what has a finish reason and its last event."""
    tally.asked += 1
    body = question(subject, tokens) | {"stream": True, "stream_options": {"include_usage": True}}
    text, reason, done = "", "", False
    usage: dict[str, int] = {}
    names: set[str] = set()
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
            async for line in answer.content:
                data = line.strip().removeprefix(b"data: ")
                done = done or data == b"[DONE]"
                if not data.startswith(b"{"):
                    continue
                event = json.loads(data)
                if "error" in event:
                    tally.failed.append(str(event["error"]["message"]))
                    return
                names.add(event["id"])
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    text += choice["delta"].get("content") or ""
                    reason = choice["finish_reason"] or reason
    except (aiohttp.ClientError, OSError, ValueError) as error:
        tally.failed.append(repr(error))
        return
    if reason != "length" or not done or len(names) != 1:
        tally.failed.append(f"incomplete: {reason!r} {done} {len(names)} ids")
        return
    tally.texts.append((subject, text))
    tally.wrong_usage += usage.get("completion_tokens") != tokens


async def load(url: str, workers: int, tokens: int, until: float) -> tuple[Tally, Tally]:
    """Ask without a pause, `workers` clients each way; returns what those of plain answers and of streams got."""
    whole, pieces = Tally(), Tally()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {API_KEY}"}, timeout=timeout) as session:

        async def client(number: int) -> None:
            ask, tally = (plain, whole) if number % 2 else (streamed, pieces)
            turn = number
            while time.monotonic() < until:
                await ask(session, url, SUBJECTS[turn % len(SUBJECTS)], tokens, tally)
                turn += 1

        await asyncio.gather(*(client(number) for number in range(2 * workers)))
    return whole, pieces


async def killing(both: Pair, every_s: float, until: float) -> None:
    """Kill them in turn."""
    number = 0
    while time.monotonic() + every_s < until:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(both.kill, number % 2)
        number += 1


# --- What differs ----------------------------------------------------------------------------------------------


class Oracle:
    """An undisturbed model server."""

    def __init__(self, session: aiohttp.ClientSession, url: str, tokens: int) -> None:
        self._session = session
        self._url = url
        self._tokens = tokens
        self._answers: dict[str, str] = {}

    async def answer(self, subject: str) -> str:
        """Return what it says."""
        if subject not in self._answers:
            document = await self._ask(question(subject, self._tokens))
            self._answers[subject] = document["choices"][0]["message"]["content"]
        return self._answers[subject]

    async def gap(self, subject: str, one: str, other: str) -> float:
        """Return how much less likely than the best its two ways to go on are where two texts part; inf: far less."""
        least = min(len(one), len(other))
        same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), least)
        places = range(same, max(-1, same - LONGEST_TOKEN), -1)  # the tokens that differ may begin alike
        return min([await self._gap_at(subject, one[:at], one[at:], other[at:]) for at in places])

    async def _gap_at(self, subject: str, text: str, one: str, other: str) -> float:
        body = question(subject, 1)
        body["messages"] += [{"role": "assistant", "content": text}]
        body |= {"add_generation_prompt": False, "continue_final_message": True, "logprobs": True, "top_logprobs": 20}
        document = await self._ask(body)
        likely = {t["token"]: t["logprob"] for t in document["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
        firsts = [_first(rest, likely) for rest in (one, other)]
        if None in firsts or firsts[0] == firsts[1]:
            return float("inf")
        best: float = max(likely.values())
        return max(best - float(likely[str(first)]) for first in firsts)

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {ENGINE_KEY}"}
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body, headers=headers) as answer:
            document: dict[str, Any] = await answer.json()
            return document


def _first(text: str, likely: dict[str, float]) -> str | None:
    """Return the longest of the likely tokens that a text begins with."""
    return max((token for token in likely if token and text.startswith(token)), key=len, default=None)


@dataclass
class Compared:
    """How answers compare with those of an undisturbed server."""

    same: int = 0
    undecided: int = 0
    widest_gap: float = 0.0
    corrupt: list[str] = field(default_factory=list)


async def compare(oracle: Oracle, texts: Sequence[tuple[str, str]]) -> Compared:
    """Compare each text; equal ones are looked at once."""
    found = Compared()
    known: dict[tuple[str, str], float] = {}
    for subject, text in texts:
        expected = await oracle.answer(subject)
        if text == expected:
            found.same += 1
            continue
        if (subject, text) not in known:
            known[subject, text] = await oracle.gap(subject, expected, text)
        gap = known[subject, text]
        if gap <= UNDECIDED:
            found.undecided += 1
            found.widest_gap = max(found.widest_gap, round(gap, 3))
        else:
            found.corrupt.append(f"{subject}: {expected!r} / {text!r}")
    return found


# --- The run ---------------------------------------------------------------------------------------------------


async def counted(url: str) -> dict[str, float]:
    """Return the gateway's own counts of what it did."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{url}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    wanted = {"streams_broken": "result", "failovers": "reason", "retries": "result"}
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        name = sample.name.removeprefix("roost_").removesuffix("_total")
        if name in wanted:
            found[f"{name}_{sample.labels[wanted[name]]}"] = sample.value
    return found


async def measure(folder: Path, *, seconds: float, every_s: float, workers: int, tokens: int) -> dict[str, Any]:
    """Run it; returns the figures."""
    key_file = folder / "key-of-engine"
    key_file.write_text(ENGINE_KEY)
    with pair(folder) as both:
        environment = {
            "ROOST_API_KEYS_FILE": str(write_keys(folder)),
            "ROOST_ENGINE_KEY_FILE": str(key_file),
            "ROOST_WAIT_S": str(WAIT_S),
            "ROOST_STATIC_ENDPOINTS": ",".join(f"http://127.0.0.1:{port}" for port in both.ports),
        }
        with service(folder, environment) as roost:
            wait_until(lambda: roost.log.read_text().count('"state": "ready"') >= 2, 60, "both to be routable")
            until = time.monotonic() + seconds
            (whole, pieces), _ = await asyncio.gather(
                load(roost.url, workers, tokens, until), killing(both, every_s, until)
            )
            counts = await counted(roost.url)
    with llama_server(folder, ONE_THREAD) as engine:
        async with aiohttp.ClientSession() as session:
            compared = await compare(Oracle(session, engine.base_url, tokens), whole.texts + pieces.texts)
    return {
        "seconds": seconds,
        "kills": both.kills,
        "kills_put_off": both.put_off,
        "plain_requests": whole.asked,
        "plain_failed": len(whole.failed),
        "streams": pieces.asked,
        "streams_failed": len(pieces.failed),
        "answers_same": compared.same,
        "answers_undecided": compared.undecided,
        "widest_gap": compared.widest_gap,
        "answers_corrupt": len(compared.corrupt),
        "wrong_token_counts": whole.wrong_usage + pieces.wrong_usage,
        **counts,
        "failures": (whole.failed + pieces.failed + compared.corrupt)[:20],
    }


def met(found: dict[str, Any]) -> bool:
    """Say whether nothing failed and nothing was corrupt, and something was killed and went on."""
    bad = ("plain_failed", "streams_failed", "answers_corrupt")
    return not any(found[name] for name in bad) and found["kills"] > 0


def main() -> None:
    """Measure, print, save; exit 1 if something failed."""
    parser = argparse.ArgumentParser(prog="bench.kills", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two kills")
    parser.add_argument("--workers", type=int, default=2, help="clients of plain answers, and as many of streams")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--no-save", action="store_true", help="write no file under bench/results")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(
            measure(
                Path(folder),
                seconds=chosen.seconds,
                every_s=chosen.every,
                workers=chosen.workers,
                tokens=chosen.tokens,
            )
        )
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if not chosen.no_save:
        sys.stdout.write(f"{save('kills', found).relative_to(ROOT)}\n")
    sys.exit(0 if met(found) else 1)


if __name__ == "__main__":
    main()
