"""How much of what conversations say again is read again: 4 replicas, conversations of 50 turns, through Roost.

The replicas are scripted, and take their caches from llama-server (build 11669): so many slots, each with the last
prompt and answer it had; a request goes to the slot that holds most of its prompt, if that is more than a tenth of it,
else to the one that was unused longest; what a slot gives up is kept in host memory up to `--cache-ram`, oldest out
first. Words are tokens. Beside Roost stands what asking the replicas in turn gives, and the ceiling: what one
endless cache for all would have saved.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from tests.support.gateway import API_KEY, service, write_keys
from tests.support.net import wait_until

from bench.results import ROOT, save

WANTED_PERCENT = 98.0
REPLICAS = 4
SLOTS = 4
SIMILAR = 0.1  # --slot-prompt-similarity
KEPT = 0.5  # a slot that keeps less of what it holds has that saved first
HOST_TOKENS = 20_000  # what --cache-ram holds
READ_PER_S, WRITE_PER_S = 20_000.0, 500.0
THINK_S = 0.05
WORDS = [f"w{number}" for number in range(5000)]


def _chance(seed: int) -> random.Random:
    """Return numbers that are the same in every run; nothing here is a secret."""
    made = random.Random()  # noqa: S311
    made.seed(seed)
    return made


def common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many tokens two sequences begin with alike."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))


@dataclass
class Slot:
    """One slot: what it holds, whether it works, when it was used last."""

    tokens: list[str] = field(default_factory=list)
    busy: bool = False
    used: float = 0.0


class Replica:
    """A model server with llama-server's cache and HTTP."""

    def __init__(self) -> None:
        self.slots = [Slot() for _ in range(SLOTS)]
        self.saved: list[list[str]] = []
        self.requests = self.prompt = self.cached = 0
        self._free = asyncio.Semaphore(SLOTS)
        self.port = 0

    def take(self, prompt: list[str]) -> tuple[Slot, int]:
        """Choose a slot; return it with how many tokens of the prompt it holds."""
        free = [slot for slot in self.slots if not slot.busy]
        best = max(free, key=lambda slot: common(slot.tokens, prompt))
        if common(best.tokens, prompt) <= SIMILAR * len(prompt):
            best = min(free, key=lambda slot: slot.used)
        shared = common(best.tokens, prompt)
        if best.tokens and shared < KEPT * len(best.tokens):
            self._save(best.tokens)
            kept = max(self.saved, key=lambda tokens: common(tokens, prompt), default=[])
            if common(kept, prompt) > shared:
                self.saved.remove(kept)
                best.tokens, shared = kept, common(kept, prompt)
        best.busy = True
        return best, shared

    def _save(self, tokens: list[str]) -> None:
        self.saved.append(tokens)
        while sum(map(len, self.saved)) > HOST_TOKENS:
            self.saved.pop(0)

    async def chat(self, request: web.Request) -> web.Response:
        """Answer as long as is asked for."""
        body = await request.json()
        prompt = [word for said in body["messages"] for word in (f"<{said['role']}>", *said["content"].split())]
        length = int(body["max_tokens"])
        async with self._free:
            slot, cached = self.take(prompt)
            if length > 1:  # not the gateway's canary
                self.requests += 1
                self.prompt += len(prompt)
                self.cached += cached
            await asyncio.sleep((len(prompt) - cached) / READ_PER_S + length / WRITE_PER_S)
            chance = _chance(len(prompt))
            answer = chance.choices(WORDS, k=length)
            slot.tokens, slot.busy, slot.used = [*prompt, "<assistant>", *answer], False, time.monotonic()
        usage = {"prompt_tokens": len(prompt), "completion_tokens": length, "total_tokens": len(prompt) + length}
        message = {"role": "assistant", "content": " ".join(answer)}
        choice = {"index": 0, "finish_reason": "length", "message": message}
        details = {"prompt_tokens_details": {"cached_tokens": cached}}
        return web.json_response({"id": "c", "model": "mock", "choices": [choice], "usage": {**usage, **details}})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replica]:
        """Listen on loopback."""
        document = {"data": [{"id": "mock", "meta": {"n_ctx": 1 << 16}}]}
        props = {"total_slots": SLOTS, "default_generation_settings": {"n_ctx": 1 << 16}}
        pages: dict[str, Callable[[], object]] = {
            "/health": lambda: {"status": "ok"},
            "/v1/models": lambda: document,
            "/props": lambda: props,
            "/slots": lambda: [{"id": n, "is_processing": slot.busy} for n, slot in enumerate(self.slots)],
        }
        app = web.Application()
        for path, say in pages.items():
            app.router.add_get(path, _page(say))
        app.router.add_post("/v1/chat/completions", self.chat)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


def _page(say: Callable[[], object]) -> Callable[[web.Request], Any]:
    async def page(_request: web.Request) -> web.Response:
        return web.json_response(say())

    return page


@dataclass(frozen=True)
class Workload:
    """Conversations side by side, all with the same instructions; words of each turn, and of its answer."""

    conversations: int
    turns: int
    instructions: int = 200
    said: tuple[int, int] = (20, 60)
    answers: tuple[int, int] = (20, 40)


class Ceiling:
    """What one endless cache for all requests would hold: a tree of tokens."""

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}

    def reusable(self, tokens: Sequence[str]) -> int:
        """Return how many tokens of a prompt were there before."""
        node, count = self._root, 0
        for token in tokens:
            if token not in node:
                break
            node, count = node[token], count + 1
        return count

    def add(self, tokens: Sequence[str]) -> None:
        """Take a prompt with its answer."""
        node = self._root
        for token in tokens:
            node = node.setdefault(token, {})


async def converse(
    session: aiohttp.ClientSession, address: Callable[[], str], number: int, work: Workload, ceiling: Ceiling
) -> tuple[int, int]:
    """Hold one conversation; returns its prompt tokens, and those of them that could be reused."""
    chance = _chance(number)
    shared = _chance(0).choices(WORDS, k=work.instructions)
    messages = [{"role": "system", "content": " ".join(shared)}]
    prompt_tokens = reusable = 0
    for _ in range(work.turns):
        said = " ".join(chance.choices(WORDS, k=chance.randint(*work.said)))
        messages.append({"role": "user", "content": said})
        prompt = [word for one in messages for word in (f"<{one['role']}>", *one["content"].split())]
        prompt_tokens += len(prompt)
        reusable += ceiling.reusable(prompt)
        body = {"model": "mock", "messages": messages, "max_tokens": chance.randint(*work.answers)}
        async with session.post(f"{address()}/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            text = (await answer.json())["choices"][0]["message"]["content"]
        messages.append({"role": "assistant", "content": text})
        ceiling.add([*prompt, "<assistant>", *text.split()])
        await asyncio.sleep(chance.expovariate(1 / THINK_S))
    return prompt_tokens, reusable


@asynccontextmanager
async def replicas() -> AsyncIterator[list[Replica]]:
    """Run all of them."""
    made = [Replica() for _ in range(REPLICAS)]
    async with made[0].running(), made[1].running(), made[2].running(), made[3].running():
        yield made


async def hold(address: Callable[[], str], work: Workload, made: Sequence[Replica]) -> dict[str, Any]:
    """Hold all conversations side by side; returns what was reused, in percent of what could be."""
    ceiling, begun = Ceiling(), time.monotonic()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {API_KEY}"}) as session:
        found = await asyncio.gather(
            *(converse(session, address, number, work, ceiling) for number in range(work.conversations))
        )
    prompt, reusable = (sum(column) for column in zip(*found, strict=True))
    requests = Counter({number: replica.requests for number, replica in enumerate(made)})
    return {
        "prompt_tokens": prompt,
        "reusable_tokens": reusable,
        "ceiling_percent": round(100 * reusable / prompt, 2),
        "reused_percent": round(100 * sum(replica.cached for replica in made) / reusable, 2),
        "requests_most": max(requests.values()),
        "requests_least": min(requests.values()),
        "seconds": round(time.monotonic() - begun, 1),
    }


async def through_roost(folder: Path, work: Workload) -> dict[str, Any]:
    """Hold them through the gateway as users run it."""
    async with replicas() as made:
        key_file = folder / "key-of-engine"
        key_file.write_text("none")
        environment = {
            "ROOST_API_KEYS_FILE": str(write_keys(folder)),
            "ROOST_ENGINE_KEY_FILE": str(key_file),
            "ROOST_STATIC_ENDPOINTS": ",".join(f"http://127.0.0.1:{replica.port}" for replica in made),
        }
        running = service(folder, environment)
        roost = await asyncio.to_thread(running.__enter__)
        try:
            ready = '"state": "ready"'
            await asyncio.to_thread(
                wait_until, lambda: roost.log.read_text().count(ready) >= REPLICAS, 60, "all replicas to be routable"
            )
            return await hold(lambda: roost.url, work, made)
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


async def in_turn(work: Workload) -> dict[str, Any]:
    """Hold them with the replicas asked in turn."""
    async with replicas() as made:
        turn = 0

        def next_one() -> str:
            nonlocal turn
            turn += 1
            return f"http://127.0.0.1:{made[turn % REPLICAS].port}"

        return await hold(next_one, work, made)


async def measure(folder: Path, work: Workload) -> dict[str, Any]:
    """Measure both ways; returns the figures."""
    roost, robin = await through_roost(folder, work), await in_turn(work)
    return {
        "replicas": REPLICAS,
        "slots_each": SLOTS,
        "conversations": work.conversations,
        "turns_each": work.turns,
        "prompt_tokens": roost["prompt_tokens"],
        "ceiling_percent_of_prompt": roost["ceiling_percent"],
        "roost_reused_percent": roost["reused_percent"],
        "round_robin_reused_percent": robin["reused_percent"],
        "roost_requests_most": roost["requests_most"],
        "roost_requests_least": roost["requests_least"],
        "roost_seconds": roost["seconds"],
        "round_robin_seconds": robin["seconds"],
    }


def main() -> None:
    """Measure, print, save; exit 1 if the target is missed."""
    parser = argparse.ArgumentParser(prog="bench.affinity", description=__doc__)
    parser.add_argument("--conversations", type=int, default=24)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--no-save", action="store_true", help="write no file under bench/results")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), Workload(chosen.conversations, chosen.turns)))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if not chosen.no_save:
        sys.stdout.write(f"{save('affinity', found).relative_to(ROOT)}\n")
    sys.exit(0 if found["roost_reused_percent"] >= WANTED_PERCENT else 1)


if __name__ == "__main__":
    main()
