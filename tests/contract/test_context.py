"""What the context room counts and decides, against the real model server behind the real gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from gguf import GGUFReader
from openai import OpenAI

from roost.context.blobs import MemoryBlobs
from roost.context.budget import CostMode
from roost.context.capabilities import Capabilities
from roost.context.discover import discover
from roost.context.keeper import Keeper, MemoryArchive, Slot
from roost.context.messages import Message, assistant, system, to_wire, user
from roost.context.pack import Head
from roost.context.prefix import PrefixGuard
from roost.context.repair import repair
from roost.context.summarise import ChatSummariser
from roost.context.tokens import ApiCounter, CountError
from tests.support.engine import MODEL, model_file
from tests.support.gateway import API_KEY, Service
from tests.unit.context.templates import JinjaTemplate

CONVERSATIONS = [
    [user("Hi")],
    [system("Be brief."), user("What is the capital of France?")],
    [user("Grüße, 你好, 🙂 and a\ttab"), assistant("Hallo!"), user("```py\nprint('x')\n```\n" * 20)],
    [system("A"), user("one"), user("two"), assistant(""), user("three \ud800\x00")],
]


@pytest.fixture
async def counter(roost: Service) -> AsyncIterator[ApiCounter]:
    """The counter of the real model."""
    async with aiohttp.ClientSession() as session:
        yield ApiCounter(roost.url, session, API_KEY, MODEL)


@pytest.mark.parametrize("messages", CONVERSATIONS)
async def test_counted_tokens_are_those_that_the_server_reads(
    messages: list[Message], counter: ApiCounter, client: OpenAI
) -> None:
    can = await discover(counter)
    sent = repair(messages, can).messages
    counted = await counter.prompt(sent)
    answer = client.chat.completions.create(model=MODEL, messages=to_wire(sent), max_tokens=1)  # type: ignore[arg-type]
    assert answer.usage is not None
    assert counted == answer.usage.prompt_tokens
    assert counter.context == 4096, "two slots share 8,192 tokens"


async def test_what_the_real_template_can_is_found_by_counting(counter: ApiCounter) -> None:
    field = GGUFReader(model_file()).get_field("tokenizer.chat_template")
    assert field is not None
    template = str(field.contents())
    found = await discover(counter)
    assert found == await discover(JinjaTemplate(template))
    assert (found.system, found.tools) == (True, False)


async def test_a_model_that_is_not_there_cannot_be_counted_with(roost: Service) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(CountError, match="could not be counted"):
            await ApiCounter(roost.url, session, API_KEY, "no-such-model").prompt([user("Hi")])


async def test_a_conversation_longer_than_the_context_is_answered_within_it(
    counter: ApiCounter, roost: Service, client: OpenAI
) -> None:
    """On a slot taken for a small one; `bench/run context` does it with a hundred times its context."""
    context = 700
    async with aiohttp.ClientSession() as session:
        keeper = Keeper(
            owner="me",
            slot=Slot(context, counter, Capabilities(tools=False, many_calls=False, text_with_calls=False), 32),
            mode=lambda: CostMode.SMART,
            head=Head("You are a helpful assistant."),
            blobs=MemoryBlobs(),
            summariser=ChatSummariser(roost.url, session, API_KEY, MODEL, context),
            archive=MemoryArchive(),
            guard=PrefixGuard(strict=True),
        )
        said = number = 0
        while said < 2 * context:
            text = f"Note {number}: crate {number * 37} holds {number + 2} brass lamps from Lyon. " * 12
            said += await counter.text(text)
            await keeper.begin(user(text))
            pack, _ = await keeper.pack(tail=f"Note {number} is the latest.")
            answer = client.chat.completions.create(
                model=MODEL,
                messages=to_wire(pack.messages),  # type: ignore[arg-type]
                max_tokens=8,
                temperature=0,
            )
            assert answer.usage is not None
            assert answer.usage.prompt_tokens == pack.tokens <= 0.9 * context
            await keeper.append(assistant(answer.choices[0].message.content or "-"))
            number += 1
    assert keeper.conversation.shown, "earlier notes were put into topics"
