"""What a request may ask of the sampler, by what a real llama-server suffers from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roost.gateway.errors import ApiError
from roost.gateway.request.kinds import CHAT, COMPLETIONS
from roost.gateway.request.requests import parse
from roost.gateway.request.shape import LARGEST_NUMBERS, MOST_GRAMMAR_CHARACTERS
from tests.support.fakes import fake_engine
from tests.support.gateway import quick_settings, served
from tests.unit.gateway.test_access import key, write_document

MESSAGES = [{"role": "user", "content": "?"}]


@pytest.mark.parametrize("name", LARGEST_NUMBERS)
def test_numbers_have_a_bound(name: str) -> None:
    for kind, prompt in ((CHAT, {"messages": MESSAGES}), (COMPLETIONS, {"prompt": "?"})):
        for good in (None, True, -1, 0, 5, LARGEST_NUMBERS[name]):
            parse(kind, json.dumps({**prompt, name: good}).encode())
        for bad in (LARGEST_NUMBERS[name] + 1, 2**31 - 1, 1e300, 2**70):
            with pytest.raises(ApiError, match=name) as caught:
                parse(kind, json.dumps({**prompt, name: bad}).encode())
            assert (caught.value.status, caught.value.param) == (400, name)


def test_a_grammar_has_a_bound() -> None:
    assert parse(CHAT, json.dumps({"messages": MESSAGES, "grammar": "x" * MOST_GRAMMAR_CHARACTERS}).encode()).grammar
    with pytest.raises(ApiError, match="grammar"):
        parse(CHAT, json.dumps({"messages": MESSAGES, "grammar": "x" * (MOST_GRAMMAR_CHARACTERS + 1)}).encode())


async def test_only_an_administrator_may_send_a_grammar(tmp_path: Path) -> None:
    document = write_document(tmp_path, key("alice"))
    async with (
        fake_engine() as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, keys_file=document)) as gateway,
    ):
        await gateway.ready()
        url = f"{gateway.url}/v1/chat/completions"
        for grammar, theirs in (('root ::= "a"', 400), ("", 200), (None, 200)):
            body = {"model": "tiny", "messages": MESSAGES, "grammar": grammar}
            headers = {"Authorization": "Bearer alice"}
            async with gateway.client.post(url, json=body, headers=headers) as answer:
                assert answer.status == theirs
            async with gateway.client.post(url, json=body) as answer:
                assert answer.status == 200
