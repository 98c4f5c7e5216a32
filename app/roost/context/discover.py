"""Finding out what a model's template can render by counting prompts.

What raises cannot be counted, and what is dropped in silence makes a prompt no longer. So any server that counts can be
asked, whatever its template engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from pydantic import JsonValue

from roost.context.capabilities import STRICTEST, Capabilities
from roost.context.messages import Call, Message, assistant, system, tool, user
from roost.context.tokens import NotCountedError, TokenCounter

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
SHORT = "one"
SEEN = 8
"""More tokens than this is what a long text has over a short one, if it is rendered."""
MISTRAL_ID = 9
"""Length of the call ids that Mistral's templates ask for."""
_Made = Callable[[str], list[Message]]
SCHEMA: JsonValue = {
    "type": "function",
    "function": {
        "name": "read",
        "description": "Reads.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string", "description": "A path."}}},
    },
}


async def discover(counter: TokenCounter) -> Capabilities:
    """Return what the template of the counter's model can; the strictest where its server has no way to count.

    Raises:
        CountError: the model is not there.
    """
    probe = _Probe(counter)
    ask, answer = user("Hi"), assistant("Hello")
    try:
        await counter.prompt([ask])
    except NotCountedError:
        return STRICTEST
    has_system = await probe.sees(lambda text: [system(text), ask])
    late = has_system and await probe.sees(lambda text: [system(text), system("Be kind."), ask])
    late = late and await probe.sees(lambda text: [system("Be kind."), system(text), ask])
    late = late and await probe.sees(lambda text: [system("Be kind."), ask, answer, system(text), ask])
    alternates = not (
        await probe.sees(lambda text: [ask, user(text)])
        and await probe.sees(lambda text: [ask, answer, assistant(text), ask])
    )
    length = 0
    tools = await _tools(probe, "call_1")
    if not tools:
        length = MISTRAL_ID
        tools = await _tools(probe, "a" * MISTRAL_ID)
    one, two = _ids(length)
    many = tools and await probe.sees(
        lambda text: [ask, assistant("", _call(one), _call(two, text)), tool(one, SHORT), tool(two, SHORT)], tools=True
    )
    both = tools and await probe.sees(lambda text: [ask, assistant(text, _call(one)), tool(one, SHORT)], tools=True)
    both = both and await probe.sees(
        lambda text: [ask, assistant("So", _call(one, text)), tool(one, SHORT)], tools=True
    )
    return Capabilities(
        system=has_system,
        late_system=late,
        alternates=alternates,
        tools=tools,
        many_calls=many,
        text_with_calls=both,
        call_id_length=length if tools else 0,
    )


class _Probe:
    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter

    async def sees(self, made: _Made, *, tools: bool = False) -> bool:
        """Say whether a long text makes a longer prompt than a short one, and neither raises."""
        schemas = (SCHEMA,) if tools else ()
        try:
            long = await self._counter.prompt(made(LONG), schemas)
            return long - await self._counter.prompt(made(SHORT), schemas) > SEEN
        except NotCountedError:
            return False


async def _tools(probe: _Probe, name: str) -> bool:
    """Say whether both a call's arguments and its result are rendered."""
    ask = user("Hi")
    return await probe.sees(
        lambda text: [ask, assistant("", _call(name)), tool(name, text)], tools=True
    ) and await probe.sees(lambda text: [ask, assistant("", _call(name, text)), tool(name, SHORT)], tools=True)


def _ids(length: int) -> tuple[str, str]:
    return ("a" * length, "b" * length) if length else ("call_1", "call_2")


def _call(name: str, path: str = SHORT) -> Call:
    return Call(id=name, name="read", arguments=json.dumps({"path": path}))
