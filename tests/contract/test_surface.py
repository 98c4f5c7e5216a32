"""The official `openai` client against every other route, and what chats can do, in front of real model servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.support.engine import MODEL, EngineProcess, llama_server
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import wait_until

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}
SMALL_CONTEXT = 256


@pytest.fixture(scope="module")
def fleet(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service before a model for chats, one for embeddings, one that reranks, and one with little context."""
    folder = tmp_path_factory.mktemp("fleet")
    alias = ("--ctx-size", "1024", "--alias")
    with (
        llama_server(folder, (*alias, "embedder", "--embedding", "--pooling", "mean")) as embedder,
        llama_server(folder, (*alias, "ranker", "--rerank")) as ranker,
        llama_server(folder, ("--ctx-size", str(2 * SMALL_CONTEXT), "--alias", "small")) as small,
    ):
        slots = {"main": engine, "embedding": embedder, "rerank": ranker, "small": small}
        environment = {
            "ROOST_API_KEYS_FILE": str(write_keys(folder)),
            "ROOST_ENGINE_KEY_FILE": str(engine.key_file),
            "ROOST_STATIC_ENDPOINTS": ",".join(f"{slot}={server.base_url}" for slot, server in slots.items()),
            "ROOST_MODEL_ALIASES": json.dumps({"gpt-4o": "main", "text-embedding-3-small": "embedding"}),
        }
        with service(folder, environment) as running:
            ready = '"state": "ready"'
            wait_until(lambda: running.log.read_text().count(ready) == len(slots), 120, "all models to be routable")
            yield running


@pytest.fixture(scope="module")
def ask(fleet: Service) -> Iterator[OpenAI]:
    """The official client."""
    with OpenAI(base_url=f"{fleet.url}/v1", api_key=API_KEY, max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture(scope="module")
def http(fleet: Service) -> Iterator[httpx.Client]:
    """A plain client, for what OpenAI's API does not have."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=fleet.url, headers=headers, timeout=120) as made:
        yield made


def count(http: httpx.Client, body: dict[str, object]) -> int:
    """Ask the gateway to count."""
    answer = http.post("/v1/count", json=body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["tokens"])


@pytest.mark.parametrize("name", ["auto", "router", "specialist", "memory", "gpt-4o"])
def test_names_lead_to_the_model(ask: OpenAI, name: str) -> None:
    answer = ask.completions.create(model=name, prompt="The capital of France is", max_tokens=3, temperature=0)
    assert answer.model == MODEL
    assert "Paris" in answer.choices[0].text
    assert answer.usage
    assert answer.usage.completion_tokens == 3


def test_a_completion_is_streamed_with_usage(ask: OpenAI) -> None:
    chunks = list(
        ask.completions.create(
            model="main",
            prompt="The capital of France is",
            max_tokens=4,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "Paris" in "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 4


def test_embeddings_have_a_direction_and_a_length(ask: OpenAI) -> None:
    answer = ask.embeddings.create(model="text-embedding-3-small", input=["a cat", "a kitten", "quantum"])
    vectors = [entry.embedding for entry in answer.data]
    assert answer.model == "embedder"
    assert [round(sum(value * value for value in vector), 3) for vector in vectors] == [1, 1, 1]
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > far
    assert answer.usage.prompt_tokens > 0


def test_a_model_for_text_makes_no_embeddings(ask: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not make embeddings") as caught:
        ask.embeddings.create(model="main", input="a cat")
    assert (caught.value.code, caught.value.param) == ("model_not_able", "model")


def test_an_input_that_no_embedding_can_hold_is_refused(ask: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask.embeddings.create(model="embedding", input="word " * 2000)
    assert caught.value.code == "context_length_exceeded"


def test_documents_are_ranked(http: httpx.Client) -> None:
    answer = http.post("/v1/rerank", json={"query": "capital of France", "documents": ["Paris", "a spoon", "x"]})
    assert answer.status_code == 200
    assert {result["index"] for result in answer.json()["results"]} == {0, 1, 2}
    refused = http.post("/v1/rerank", json={"model": "main", "query": "x", "documents": ["x"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_not_able")


def test_a_response_plain_and_streamed(ask: OpenAI) -> None:
    answer = ask.responses.create(model="main", input="What is the capital of France?", max_output_tokens=16)
    assert answer.output_text
    assert answer.usage
    events = list(ask.responses.create(model="main", input="Say hello.", max_output_tokens=8, stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):  # nothing is kept
        ask.responses.create(model="main", input="And of Italy?", previous_response_id="resp_1")


def test_log_probabilities_seed_and_stop(ask: OpenAI) -> None:
    texts = set()
    for _ in range(2):
        answer = ask.chat.completions.create(
            model="main", messages=HELLO, max_tokens=6, seed=7, temperature=1.5, logprobs=True, top_logprobs=3
        )
        texts.add(answer.choices[0].message.content)
        assert answer.choices[0].logprobs
        assert [len(token.top_logprobs) for token in answer.choices[0].logprobs.content or []] == [3] * 6
    assert len(texts) == 1
    stopped = ask.chat.completions.create(model="main", messages=HELLO, max_tokens=40, temperature=0, stop=[" "])
    assert stopped.choices[0].finish_reason == "stop"
    assert " " not in (stopped.choices[0].message.content or "")


def test_several_answers_as_many_as_there_are_slots(ask: OpenAI) -> None:
    answer = ask.chat.completions.create(model="main", messages=HELLO, max_tokens=3, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    with pytest.raises(openai.BadRequestError, match="'n'"):
        ask.chat.completions.create(model="main", messages=HELLO, max_tokens=3, n=3)


def test_an_image_for_a_model_without_eyes_is_a_bad_request(ask: OpenAI) -> None:
    image: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}
    with pytest.raises(openai.BadRequestError, match="image input is not supported"):
        ask.chat.completions.create(model="main", messages=[{"role": "user", "content": [image]}], max_tokens=3)


def test_the_name_of_a_request_comes_back_and_is_in_the_log(ask: OpenAI, fleet: Service) -> None:
    headers = {"X-Request-Id": "my-request.1"}
    raw = ask.chat.completions.with_raw_response.create(
        model="main", messages=HELLO, max_tokens=1, extra_headers=headers
    )
    assert raw.headers["x-request-id"] == "my-request.1"
    # The line is written once the answer is on its way.
    wait_until(lambda: '"request_id": "my-request.1"' in fleet.log.read_text(), 10, "its line in the log")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": HELLO},
        {"messages": [{"role": "system", "content": "Be brief."}, *HELLO], "tools": [WEATHER]},
        {"messages": [{"role": "user", "content": "ünïcödé 🐓 " * 5}, {"role": "assistant", "content": "x"}, *HELLO]},
    ],
)
def test_what_is_counted_is_what_the_model_server_reads(
    http: httpx.Client, ask: OpenAI, body: dict[str, object]
) -> None:
    answer = http.post("/v1/chat/completions", json={**body, "max_tokens": 1}).json()
    assert count(http, body) == answer["usage"]["prompt_tokens"]
    tokens = http.post("/v1/tokenize", json={"content": "What is the capital?"}).json()["tokens"]
    assert count(http, {"prompt": "What is the capital?"}) == len(tokens)
    assert http.post("/v1/detokenize", json={"tokens": tokens}).json() == {"content": "What is the capital?"}
    told = ask.models.retrieve("main").to_dict()["roost"]
    assert isinstance(told, dict)
    assert told["context"] == 4096


@pytest.mark.parametrize("text", ["a", " ", "\n", "\t\t", "é", "🐓", "\u200d", "中", "<|im_end|>", "\\", '"', "ﷺ"])
def test_no_text_has_more_tokens_than_the_bound_without_counting(http: httpx.Client, text: str) -> None:
    body: dict[str, object] = {"messages": [{"role": "user", "content": text * 300}]}
    assert count(http, body) <= len(json.dumps(body, ensure_ascii=False).encode()) + 256


def test_what_does_not_fit_is_refused_with_the_numbers_or_cut_on_request(http: httpx.Client) -> None:
    turns = [{"role": "user", "content": "word " * 150}, {"role": "assistant", "content": "Yes."}, *HELLO]
    body = {"model": "small", "messages": turns, "max_tokens": 200, "temperature": 0}
    refused = http.post("/v1/chat/completions", json=body)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["context"] == SMALL_CONTEXT
    assert error["prompt_tokens"] == count(http, body)
    answer = http.post("/v1/chat/completions", json={**body, "max_tokens": 8}, headers={"X-Roost-Context": "cut"})
    assert answer.status_code == 200
    assert "x-roost-cut" not in answer.headers
    long = {**body, "messages": [{"role": "user", "content": "word " * 300}, *turns[1:]], "max_tokens": 8}
    assert http.post("/v1/chat/completions", json=long).status_code == 400
    cut = http.post("/v1/chat/completions", json=long, headers={"X-Roost-Context": "cut"})
    assert (cut.status_code, cut.headers["x-roost-cut"]) == (200, "messages=2")
    assert cut.json()["usage"]["prompt_tokens"] == count(http, {"model": "small", "messages": HELLO})


def test_an_answer_ends_at_the_end_of_the_context_and_nothing_is_shifted_out(http: httpx.Client) -> None:
    body = {"model": "small", "messages": HELLO, "ignore_eos": True}
    answer = http.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == SMALL_CONTEXT
