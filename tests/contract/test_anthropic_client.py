"""The official `anthropic` client, with nothing changed but its base URL and key, in front of a real model server."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest
from anthropic import Anthropic

from tests.support.engine import MODEL
from tests.support.gateway import API_KEY, Service
from tests.support.net import wait_until


@pytest.fixture
def client(roost: Service) -> Iterator[Anthropic]:
    with Anthropic(base_url=roost.url, api_key=API_KEY, max_retries=0, timeout=120) as made:
        yield made


def test_a_plain_message(client: Anthropic, roost: Service) -> None:
    answer = client.messages.create(
        model="main",
        max_tokens=24,
        extra_body={"temperature": 0},
        system="You are a helpful assistant.",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
    )
    assert answer.model == MODEL
    assert answer.content[0].type == "text"
    assert "Paris" in answer.content[0].text
    assert answer.usage.output_tokens > 0
    assert answer._request_id
    line = f'"request_id": "{answer._request_id}"'
    wait_until(
        lambda: line in roost.log.read_text(), 10, "its line in the log"
    )  # written once the answer is on its way


def test_a_streamed_message(client: Anthropic) -> None:
    with client.messages.stream(
        model="main",
        max_tokens=24,
        system="You are a helpful assistant.",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text
    assert final.stop_reason in {"end_turn", "max_tokens"}
    assert final.usage.output_tokens > 0


def test_tokens_are_counted(client: Anthropic) -> None:
    few = client.messages.count_tokens(model="main", messages=[{"role": "user", "content": "Hi"}])
    many = client.messages.count_tokens(model="main", messages=[{"role": "user", "content": "Hi " * 50}])
    assert 0 < few.input_tokens < many.input_tokens


def test_what_does_not_fit_is_refused_with_the_numbers(client: Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="maximum context length is 4096 tokens"):
        client.messages.create(model="main", max_tokens=9000, messages=[{"role": "user", "content": "Hi"}])


def test_errors_are_those_that_the_client_knows(client: Anthropic, roost: Service) -> None:
    with pytest.raises(anthropic.NotFoundError, match="does not exist"):
        client.messages.create(model="nobody", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        client.messages.create(model="main", max_tokens=5, messages=[])
    stranger = Anthropic(base_url=roost.url, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model="main", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])
