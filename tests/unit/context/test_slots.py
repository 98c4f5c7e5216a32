"""What is known of models in use is asked for once."""

from __future__ import annotations

import pytest

from roost.context import slots
from roost.context.capabilities import Capabilities
from roost.context.slots import Slots
from roost.context.tokens import CountError
from tests.unit.context.templates import FAMILIES, JinjaTemplate


async def test_a_model_is_asked_once_for_each_key() -> None:
    made: list[tuple[str, str]] = []

    def counter_of(secret: str, model: str) -> JinjaTemplate:
        made.append((secret, model))
        return JinjaTemplate(FAMILIES[model])

    known = Slots(counter_of)
    slot = await known.slot("key", "qwen 3", 4096)
    assert (slot.context_tokens, slot.capabilities) == (4096, Capabilities())
    again = await known.slot("key", "qwen 3", 8192)
    assert (again.context_tokens, again.counter) == (8192, slot.counter)
    assert (await known.slot("key", "gemma 2", 4096)).capabilities.alternates
    await known.slot("other", "qwen 3", 4096)
    assert made == [("key", "qwen 3"), ("key", "gemma 2"), ("other", "qwen 3")]


async def test_a_model_that_was_not_there_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(_counter: object) -> Capabilities:
        raise CountError("It is not there.")

    known = Slots(lambda _secret, _model: JinjaTemplate(FAMILIES["chatml"]))
    with monkeypatch.context() as patched:
        patched.setattr(slots, "discover", gone)
        with pytest.raises(CountError):
            await known.slot("key", "chatml", 4096)
    assert not (await known.slot("key", "chatml", 4096)).capabilities.tools


async def test_not_all_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "MOST", 2)
    made: list[str] = []

    def counter_of(secret: str, model: str) -> JinjaTemplate:
        made.append(secret)
        return JinjaTemplate(FAMILIES[model])

    known = Slots(counter_of)
    for secret in ("a", "b", "a", "c", "a", "b"):
        await known.slot(secret, "chatml", 4096)
    assert made == ["a", "b", "c", "b"]
