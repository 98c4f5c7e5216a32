"""Whether a conversation stays within its model's context, and how much of a prompt is not read again.

`calls`: 10,000 prompts of random conversations, in memory: what is neither there whole nor marked as shortened.
`reuse`: 50 turns with tool results on a real llama.cpp server, tokens from its prefix cache beside what could have come
from it. `long`: a conversation of 100 times the context of a real server, its summaries by the same model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from tests.support.engine import ENGINE_KEY, MODEL, llama_server
from tests.support.gateway import API_KEY, service, write_keys
from tests.support.net import wait_until

from bench.results import ROOT, save
from bench.transfer import Notes, add_transfer, taken
from roost.context.blobs import FileBlobs, MemoryBlobs
from roost.context.budget import CONTEXT_SHARE, SUMMARISER_SHARE, CostMode, bounds
from roost.context.capabilities import STRICTEST, Capabilities
from roost.context.discover import discover
from roost.context.events import ContextEvent, Kind
from roost.context.gate import Gate
from roost.context.keeper import Keeper, MemoryArchive, Slot
from roost.context.messages import Call, Message, assistant, to_wire, tool, user
from roost.context.pack import Head, Packer
from roost.context.prefix import PrefixGuard
from roost.context.summarise import ChatSummariser
from roost.context.tokens import ApiCounter, Estimate

REUSED = 0.98  # of the prompt tokens that the server could have had in its cache
PARTS = ("calls", "reuse", "long")
HEAD = Head("You are a careful assistant. Answer in one short sentence.")
PLACES = ("harbour", "orchard", "workshop", "library", "station", "kitchen", "tower", "meadow")
THINGS = ("lamps", "ropes", "maps", "letters", "pumps", "wheels", "clocks", "seeds")


def story(number: int, sentences: int) -> str:
    """Return sentences about one of some places; the same for the same number."""
    place = PLACES[number // 7 % len(PLACES)]
    return " ".join(
        f"In the {place} there are {number * 31 + at * 7} {THINGS[(number + at) % len(THINGS)]}, counted on day {at}."
        for at in range(sentences)
    )


async def calls(count: int, seed: int) -> dict[str, Any]:
    """Make prompts of random conversations; count those that lost something in silence or went over a bound."""
    dice = random.Random(seed)  # noqa: S311  # the same conversations each time, no secret
    silent = over = shortened = 0
    largest = 0.0
    for _ in range(count):
        context = dice.choice((1024, 2048, 4096, 16_384))
        packer = Packer(
            bounds(dice.choice(list(CostMode)), context, 256),
            Gate(MemoryBlobs(), "bench", Estimate()),
            dice.choice((Capabilities(), STRICTEST)),
        )
        work: list[Message] = []
        texts = [story(dice.randrange(1000), dice.choice((1, 4, 20, 200))) for _ in range(dice.randrange(1, 12))]
        for number, text in enumerate(texts):
            work += [assistant("", Call(id=f"c{number}", name="read")), tool(f"c{number}", text)]
        task = story(dice.randrange(1000), dice.choice((1, 4, 40)))
        pack = await packer.specialist(task, HEAD, work)
        largest = max(largest, pack.tokens / context)
        over += pack.tokens > CONTEXT_SHARE * context
        prompt = "\n".join(message.text for message in pack.messages)
        gone = [text for text in (task, *texts) if text not in prompt]
        shortened += bool(gone)
        marks = sum(message.text.count("[Shortened") for message in pack.messages)
        if gone and not (pack.events and (marks or "[Left out here" in prompt)):
            silent += 1
    return {"calls": count, "calls_shortened": shortened, "calls_silent": silent, "calls_over": over,
            "calls_largest_share": round(largest, 3)}  # fmt: skip


@dataclass
class Talk:
    """A conversation with a real model, and what it took."""

    url: str
    session: aiohttp.ClientSession
    keeper: Keeper
    requests: int = 0
    largest: int = 0
    unlike: int = 0
    empty: int = 0
    last: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    events: list[ContextEvent] = field(default_factory=list)
    prompts: list[tuple[list[Message], str]] = field(default_factory=list)
    remembers: bool = True
    """Whether `prompts` are kept."""

    async def answer(self, tail: str, tokens: int) -> str:
        """Have the model answer the turn under way; note what the server says that it read."""
        pack, events = await self.keeper.pack(tail)
        self.events += events
        body = {"model": MODEL, "messages": to_wire(pack.messages), "max_tokens": tokens, "temperature": 0}
        headers = {"Authorization": f"Bearer {API_KEY}"}
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body, headers=headers) as answer:
            document = await answer.json()
            if answer.status != 200:
                raise RuntimeError(f"the model answered {answer.status}: {document}")
        usage = document["usage"]
        self.requests += 1
        self.largest = max(self.largest, usage["prompt_tokens"])
        self.unlike += usage["prompt_tokens"] != pack.tokens
        self.prompt_tokens += usage["prompt_tokens"]
        self.cached_tokens += usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        self.last = document["choices"][0]["message"]["content"] or ""
        self.empty += not self.last.strip()
        if self.remembers:
            self.prompts.append((list(pack.messages), self.last or "-"))
        return self.last or "-"

    async def turn(self, question: str, results: Sequence[str], tokens: int, tail: str = "") -> None:
        """Ask something; each result is one tool round."""
        self.events += await self.keeper.begin(user(question))
        for number, result in enumerate(results):
            await self.answer(tail, tokens)
            call = Call(id=f"c{self.keeper.conversation.last_number}x{number}", name="read")
            self.events += await self.keeper.append(assistant("", call), tool(call.id, result))
        self.events += await self.keeper.append(assistant(await self.answer(tail, tokens)))

    def count(self, kind: Kind) -> int:
        """Return how often something happened."""
        return sum(event.kind is kind for event in self.events)


async def reusable(session: aiohttp.ClientSession, engine: str, talk: Talk) -> int:
    """Return how many prompt tokens were in the server's cache at best: those that the request before left there."""
    headers = {"Authorization": f"Bearer {ENGINE_KEY}"}

    async def tokens(messages: list[Message], answer: str) -> list[int]:
        async with session.post(
            f"{engine}/apply-template", json={"messages": to_wire(messages)}, headers=headers
        ) as said:
            prompt = (await said.json())["prompt"] + answer
        body = {"content": prompt, "add_special": True, "parse_special": True}
        async with session.post(f"{engine}/tokenize", json=body, headers=headers) as said:
            found: list[int] = (await said.json())["tokens"]
            return found

    total = 0
    before: list[int] = []
    for messages, answer in talk.prompts:
        now = await tokens(messages, "")
        same = 0
        while same < min(len(now), len(before)) and now[same] == before[same]:
            same += 1
        total += min(same, len(now) - 1)  # the last token is always read: its logits are needed
        before = await tokens(messages, answer)
    return total


def keeper(talk_url: str, session: aiohttp.ClientSession, slot: Slot, folder: Path, steps: list[int]) -> Keeper:
    """Return the keeper of a conversation; the same model makes summaries, `steps` gets how long each step was."""
    inner = ChatSummariser(talk_url, session, API_KEY, MODEL, slot.context_tokens)

    class Watched:
        context_tokens = slot.context_tokens

        async def summarise(self, text: str, tokens: int) -> str:
            steps.append(await slot.counter.text(text) + tokens)
            return await inner.summarise(text, tokens)

    return Keeper(
        owner="bench", slot=slot, mode=lambda: CostMode.SMART, head=HEAD, blobs=FileBlobs(folder / "blobs"),
        summariser=Watched(), archive=MemoryArchive(), guard=PrefixGuard(strict=True),
    )  # fmt: skip


Keep = Callable[[dict[str, Any]], None]
"""Given the figures of a part as far as they are known."""


def told(figures: dict[str, Any], keep: Keep) -> dict[str, Any]:
    """Show and keep figures before the rest is there, so that a part that ends early has not lost them."""
    print(json.dumps(figures), file=sys.stderr)
    keep(figures)
    return figures


def progress(done: float, what: str) -> None:
    """Show how far a long part is."""
    print(f"\r{what}: {done:.0%}", end="" if done < 1 else "\n", file=sys.stderr, flush=True)


def is_ready(log: Path) -> bool:
    """Say whether the gateway's log says that the model can be used."""
    return '"state": "ready"' in log.read_text()


async def measure(
    folder: Path, parts: Sequence[str], *, context: int, times: int, turns: int, count: int, keep: Keep, most_s: float
) -> dict[str, Any]:
    """Return the figures of `parts`; `keep` is given all that is known after each, and after each turn of `long`.

    No turn of `long` is begun after `most_s` seconds.
    """
    found: dict[str, Any] = {}

    def keep_all(more: dict[str, Any]) -> None:
        keep(found | more)

    if "calls" in parts:
        found |= told(await calls(count, seed=7), keep_all)
    wide = ("--ctx-size", "16384", "--parallel", "1")
    for name, extra in (("reuse", wide), ("long", ("--ctx-size", str(context), "--parallel", "1"))):
        if name not in parts:
            continue
        place = folder / name
        place.mkdir()
        with llama_server(place, extra) as engine:
            environment = {
                "ROOST_API_KEYS_FILE": str(write_keys(place)),
                "ROOST_ENGINE_KEY_FILE": str(engine.key_file),
                "ROOST_STATIC_ENDPOINTS": engine.base_url,
            }
            with service(place, environment) as roost:
                wait_until(partial(is_ready, roost.log), 60, "the model to be routable")
                async with aiohttp.ClientSession() as session:
                    counter = ApiCounter(roost.url, session, API_KEY, MODEL)
                    can = await discover(counter)
                    steps: list[int] = []
                    real = counter.context or 0
                    kept = keeper(roost.url, session, Slot(real, counter, can, 64), place, steps)
                    talk = Talk(roost.url, session, kept, remembers=name == "reuse")
                    if name == "reuse":
                        found |= told(await reuse(talk, engine.base_url, turns), keep_all)
                    else:
                        found |= told(await long(talk, counter, real, times, steps, keep_all, most_s), keep_all)
    return found


async def reuse(talk: Talk, engine: str, turns: int) -> dict[str, Any]:
    """Talk for some turns, every other one with tool rounds."""
    for number in range(turns):
        results = [story(number, 4), story(number + 1, 2)] if number % 2 else []
        await talk.turn(f"Question {number}: {story(number, 1)}", results, 24)
        progress((number + 1) / turns, "reuse")
    best = await reusable(talk.session, engine, talk)
    return {
        "reuse_turns": turns,
        "reuse_requests": talk.requests,
        "reuse_prompt_tokens": talk.prompt_tokens,
        "reuse_cached_tokens": talk.cached_tokens,
        "reuse_reusable_tokens": best,
        "reuse_of_reusable": round(talk.cached_tokens / best, 4),
        "reuse_of_prompt": round(talk.cached_tokens / talk.prompt_tokens, 4),
        "reuse_ceiling_of_prompt": round(best / talk.prompt_tokens, 4),
        "reuse_compactions": talk.count(Kind.COMPACTED),
    }


async def long(
    talk: Talk, counter: ApiCounter, context: int, times: int, steps: list[int], keep: Keep, most_s: float
) -> dict[str, Any]:
    """Talk until `times` the context has been said, or `most_s` seconds are over."""
    begun = time.monotonic()
    said = number = 0
    found: dict[str, Any] = {}
    while said < times * context and time.monotonic() - begun < most_s:
        question, results = f"Question {number}: {story(number, 3)}", [story(number + 3, 30)]
        said += sum([await counter.text(text) for text in (question, *results)])
        await talk.turn(question, results, 16, tail=f"This is note {number}.")
        number += 1
        found = long_figures(talk, context, said, number, steps, time.monotonic() - begun)
        found["long_wanted_times"] = times
        keep(found)
        progress(min(said / (times * context), 1), "long")
    return found


def long_figures(
    talk: Talk, context: int, said: int, turns: int, steps: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Return what is known of the long conversation after so many turns."""
    return {
        "long_context": context,
        "long_said_tokens": said,
        "long_times": round(said / context, 1),
        "long_turns": turns,
        "long_requests": talk.requests,
        "long_without_answer": talk.empty,
        "long_largest_share": round(talk.largest / context, 3),
        "long_counts_unlike_the_servers": talk.unlike,
        "long_compactions": talk.count(Kind.COMPACTED),
        "long_summaries_shown": len(talk.keeper.conversation.shown),
        "long_topics": len(talk.keeper.conversation.topics()),
        "long_largest_step_share": round(max(steps, default=0) / context, 3),
        "long_summaries_without_model": sum(
            int(str(event.detail["without_model"])) for event in talk.events if event.kind is Kind.COMPACTED
        ),
        "long_escalations": talk.count(Kind.ESCALATED),
        "long_last_answer": talk.last,
        "long_seconds": round(seconds),
    }


def met(found: dict[str, Any]) -> bool:
    """Say whether the targets of what was measured were met."""
    most: dict[str, float] = {"calls_silent": 0, "calls_over": 0, "long_counts_unlike_the_servers": 0}
    most |= {"long_without_answer": 0}
    most |= {"long_largest_share": CONTEXT_SHARE, "long_largest_step_share": SUMMARISER_SHARE}
    reused = float(found.get("reuse_of_reusable", 1))
    whole = float(found.get("long_times", 0)) >= float(found.get("long_wanted_times", 0))
    return whole and reused >= REUSED and all(found.get(name, bound) <= bound for name, bound in most.items())


def main() -> None:
    """Measure, print, save; exit 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="bench.context", description=__doc__)
    parser.add_argument("--context", type=int, default=2048, help="tokens of the slot of the long conversation")
    parser.add_argument("--times", type=int, default=100, help="how many times that is said")
    parser.add_argument("--turns", type=int, default=50, help="turns of the conversation whose prefix is reused")
    parser.add_argument("--calls", type=int, default=10_000, help="prompts made in memory")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="no turn of the long conversation is begun later"
    )
    parser.add_argument("--only", choices=PARTS, help="one part; its figures are printed and not kept")
    parser.add_argument("--no-save", action="store_true", help="write no file under bench/results")
    add_transfer(parser)
    chosen = parser.parse_args()
    notes = Notes(chosen.output)
    found = taken(chosen.take, notes) if chosen.take else measured(chosen, notes)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if not (chosen.no_save or chosen.only or chosen.output):
        sys.stdout.write(f"{save('context', found, on=notes.machine).relative_to(ROOT)}\n")
    sys.exit(0 if met(found) else 1)


def measured(chosen: argparse.Namespace, notes: Notes) -> dict[str, Any]:
    """Measure what was asked for."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(
            measure(
                Path(folder),
                (chosen.only,) if chosen.only else PARTS,
                context=chosen.context,
                times=chosen.times,
                turns=chosen.turns,
                count=chosen.calls,
                keep=notes.keep,
                most_s=chosen.seconds,
            )
        )


if __name__ == "__main__":
    main()
