"""No secret and no text of a prompt or an answer in any line of the log; each line says what it belongs to."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, TypeAdapter

from roost.gateway.app import build, client_session
from roost.gateway.routing import Route
from roost.gateway.telemetry import REDACTED, Redactor, configure, described, known_secrets, report_of_loop
from roost.ops.errors import RoostError
from tests.support.fakes import Mode, fake_engine
from tests.support.gateway import API_KEY, quick_settings, served, write_keys
from tests.support.net import eventually

CHAT = "/v1/chat/completions"
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
WORD = st.text(ALPHABET, min_size=24, max_size=60)
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FAULTS: tuple[Mode, ...] = ("ready", "loading", "drop", "die-mid-event", "truncate", "error", "silent")


@contextmanager
def logged(*known: str, level: str = "debug") -> Iterator[io.StringIO]:
    """Log as the service does, into memory."""
    stream, before, root = io.StringIO(), sys.stderr, logging.getLogger()
    kept, at = list(root.handlers), root.level
    sys.stderr = stream
    try:
        configure(level, known)
        yield stream
    finally:
        sys.stderr = before
        root.handlers[:] = kept
        root.setLevel(at)
        structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# --- What is logged, whatever it is -------------------------------------------------------------------------------

FORMS = (
    "Authorization: Bearer {}",
    "authorization={}",
    "x-api-key: {}",
    '{{"api_key": "{}"}}',
    "Basic {}",
    "roost-{}",
    "sk-{}",
    "X-Nomad-Token: {}",
    "eyJ{0}.{0}.{0}",
)
NAMES = ("authorization", "api_key", "x-api-key", "engine_key", "nomad_token", "password", "client_secret", "cookie")
Place = object
PLACES: st.SearchStrategy[Place] = st.recursive(
    st.just("SECRET"),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2),
        st.dictionaries(st.sampled_from(["a", "headers", "said"]), inner, min_size=1, max_size=2),
        st.tuples(inner),
    ),
    max_leaves=4,
)


def filled(place: Place, text: str) -> Place:
    if isinstance(place, dict):
        return {name: filled(inner, text) for name, inner in place.items()}
    if isinstance(place, list | tuple):
        return [filled(inner, text) for inner in place]
    return text


@given(WORD, st.sampled_from(FORMS), PLACES, st.text(max_size=10), st.text(max_size=10))
def test_what_looks_like_a_secret_is_hidden_wherever_it_stands(
    secret: str, form: str, place: Place, before: str, after: str
) -> None:
    text = f"{before} {form.format(secret)} {after}"
    assert secret not in json.dumps(Redactor()(None, "info", {"event": text, "field": filled(place, text)}))


@given(WORD, st.sampled_from(NAMES), PLACES)
def test_what_is_named_like_a_secret_is_hidden(secret: str, name: str, place: Place) -> None:
    for field in (name, name.upper(), f"upstream_{name}"):
        cleaned = Redactor()(None, "info", {field: filled(place, secret), "deep": {field: secret}})
        assert secret not in json.dumps(cleaned)
        assert cleaned[field] == REDACTED


@given(st.text(ALPHABET + "-_.", min_size=8, max_size=40), PLACES, st.text(max_size=8))
def test_the_secrets_of_this_process_are_hidden_whatever_they_look_like(secret: str, place: Place, around: str) -> None:
    class Odd:
        def __repr__(self) -> str:
            return f"<odd {secret}>"

    event = {"event": f"{around}{secret}{around}", "at": filled(place, f"x{secret}"), secret: 1, "odd": Odd()}
    cleaned = Redactor([secret, ""])(None, "info", {**event, "in": {secret: secret}})
    said = json.dumps({name: value for name, value in cleaned.items() if name != secret})
    assert secret not in said.replace(REDACTED, "")


def test_the_secrets_of_this_process_are_known(tmp_path: Path) -> None:
    (tmp_path / "peer-key").write_text("key-of-replicas\n")
    found = known_secrets(
        quick_settings(tmp_path, NOMAD_TOKEN=SecretStr("identity-of-the-job"), peer_key_file=tmp_path / "peer-key")
    )
    assert found == ["identity-of-the-job", "engine-key", "key-of-replicas"]


async def test_keys_of_endpoints_that_come_later_are_known_and_stay_hidden(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    fields = {"url": "http://127.0.0.1:9", "engine": "ollama"}
    redactor = Redactor()

    def shown() -> object:
        return redactor(None, "info", {"event": "the ollama said: wrong key odd-cloud-key-1"})["event"]

    async with client_session() as session:
        gateway = build(quick_settings(tmp_path, endpoints_file=file), session, on_secrets=redactor.know)
        assert "odd-cloud-key-1" in str(shown())
        keys = (("a", "odd-cloud-key-1"), ("b", "ollama"))  # the second is what people give where any key will do
        document = {"revision": 1, "endpoints": [{"name": name, "key": key, **fields} for name, key in keys]}
        file.write_text(json.dumps(document))
        gateway.hand.look()
        assert shown() == f"the ollama said: wrong key {REDACTED}"
        file.write_text(json.dumps({"revision": 2}))
        gateway.hand.look()
        assert shown() == f"the ollama said: wrong key {REDACTED}"


@given(WORD)
def test_the_text_of_an_exception_that_may_hold_a_prompt_is_not_logged(prompt: str) -> None:
    loop = asyncio.new_event_loop()
    with logged() as stream:
        log = structlog.get_logger("test")
        for error in failures(prompt):
            log.error("failed", exc_info=error)
            logging.getLogger("library").error("failed", exc_info=error)
            report_of_loop(loop, {"message": f"never retrieved\n{prompt}", "exception": error})
    loop.close()
    assert prompt not in stream.getvalue()
    assert all(line["exception"] for line in lines(stream))


def failures(prompt: str) -> Iterator[BaseException]:
    """Yield exceptions that hold a prompt, some of them behind others."""

    def lookup() -> None:
        dict[str, str]()[prompt]

    def behind() -> None:
        try:
            lookup()
        except KeyError as error:
            raise RuntimeError("no") from error

    def on_the_way() -> None:
        try:
            lookup()
        finally:
            json.loads(prompt)

    wrong_type = functools.partial(TypeAdapter(int).validate_python, prompt)
    for fail in (lookup, behind, on_the_way, wrong_type, functools.partial(json.loads, f'{{"a": {prompt}')):
        try:
            fail()
        except (KeyError, RuntimeError, ValueError) as error:
            yield error


def refuse() -> None:
    raise RoostError("The disk is full.")


def test_what_the_system_and_we_say_of_a_failure_is_logged_with_its_place() -> None:
    with pytest.raises(RoostError) as caught:
        refuse()
    said = described(caught.value)
    assert said[0] == "roost.ops.errors.RoostError: The disk is full."
    assert said[-1].strip().endswith("refuse")
    assert described(FileNotFoundError(2, "No such file", "x")) == [
        "builtins.FileNotFoundError: [Errno 2] No such file: 'x'"
    ]


# --- A whole gateway ----------------------------------------------------------------------------------------------


@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=WORD, key=WORD, engine_key=WORD, wrong=WORD, answer=WORD, stream=st.booleans())
def test_no_line_of_a_gateway_holds_a_key_or_a_text(
    tmp_path_factory: pytest.TempPathFactory,
    prompt: str,
    key: str,
    engine_key: str,
    wrong: str,
    answer: str,
    stream: bool,
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    with logged(engine_key) as out:
        asyncio.run(every_fault(folder, prompt, key, engine_key, wrong, answer, stream=stream))
    text = out.getvalue()
    for secret in (prompt, key, engine_key, wrong, answer, API_KEY):
        assert secret not in text, secret
    found = lines(out)
    assert len(found) > 3 * len(FAULTS)
    for line in found:
        assert {"event", "level", "timestamp", "logger"} <= line.keys()
        if line["event"] in ("chat", "failover", "unhandled"):
            assert line["request_id"].startswith("of-the-test-")
            assert line["trace_id"] == TRACE


async def every_fault(
    folder: Path, prompt: str, key: str, engine_key: str, wrong: str, answer: str, *, stream: bool
) -> None:
    """Ask in every way that fails, with secrets wherever a client or a model server may put them."""
    message: dict[str, object] = {"role": "assistant", "content": answer}
    said = {"error": {"message": f"cannot parse {prompt}", "type": "server_error"}}
    async with fake_engine(key=engine_key, message=message, error=(500, said)) as engine:
        configured = quick_settings(folder, static_endpoints=engine.url, wait_s=0.2, health_timeout_s=0.3)
        (folder / "engine").write_text(engine_key)
        configured = configured.model_copy(
            update={"api_keys_file": write_keys(folder, key), "engine_key_file": folder / "engine"}
        )
        async with served(configured) as gateway:
            await gateway.ready()
            number = 0

            async def ask(token: str, body: object, query: str = "", **more: str) -> None:
                nonlocal number
                number += 1
                headers = {
                    "authorization": f"Bearer {token}",
                    "x-request-id": f"of-the-test-{number}",
                    "traceparent": f"00-{TRACE}-{SPAN}-01",
                    "cookie": f"session={wrong}",
                    **more,
                }
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    async with gateway.client.post(gateway.url + CHAT + query, data=data, headers=headers) as got:
                        await asyncio.wait_for(got.read(), 2)
                except (OSError, TimeoutError):
                    return

            good = {"model": "tiny", "messages": [{"role": "user", "content": prompt}], "stream": stream}
            for mode in FAULTS:
                engine.mode = mode
                await ask(key, good)
                engine.mode = "ready"
                await eventually(lambda: gateway.states() == ["ready"], 10, "the engine to be ready again")
            await ask(wrong, good)
            await ask(wrong, good, **{"x-api-key": wrong})
            await ask(key, {**good, "model": prompt})
            await ask(key, {**good, "messages": prompt})
            await ask(key, {**good, "temperature": prompt})
            await ask(key, f'{{"messages": {prompt}'.encode())
            await ask(key, good, f"?key={wrong}&prompt={prompt}")
            gateway.gateway.registry.route = broken(prompt)  # type: ignore[method-assign]  # a fault of our own
            await ask(key, good)


def broken(prompt: str) -> Callable[..., Route]:
    def route(*_args: object) -> Route:
        raise KeyError(prompt)

    return route
