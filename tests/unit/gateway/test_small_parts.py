"""Errors, accounting, redaction and event boundaries: pure functions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.account.accounting import Tokens, of_answer, of_stream
from roost.gateway.engine_errors import from_engine
from roost.gateway.request.kinds import CHAT
from roost.gateway.request.relay import whole_events
from roost.gateway.telemetry import REDACTED, Redactor


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": {"message": "bad", "type": "invalid_request_error"}}, (400, "invalid_request_error", None)),
        (
            400,
            {"error": {"message": "long", "type": "exceed_context_size_error", "n_ctx": 4096}},
            (400, "invalid_request_error", "context_length_exceeded"),
        ),
        (429, {"error": {"message": "slow down"}}, (429, "rate_limit_error", None)),
        (501, {"error": {"message": "no"}}, (501, "server_error", None)),
        (401, {"error": {"message": "Invalid API Key"}}, (502, "server_error", "engine_failed")),
        (404, {"detail": "Not Found"}, (502, "server_error", "engine_failed")),
        (500, None, (502, "server_error", "engine_failed")),
    ],
)
def test_an_engine_error_becomes_one_that_openai_clients_know(
    status: int, body: object, expected: tuple[int, str, str | None]
) -> None:
    error = from_engine(status, json.dumps(body).encode() if body else b"<html>", CHAT)
    assert (error.status, error.kind, error.code) == expected
    document = json.loads(error.body())["error"]
    assert set(document) == {"message", "type", "param", "code"}
    assert document["message"]


def test_tokens_come_from_usage_or_from_timings() -> None:
    usage = b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}'
    timings = b'data: {"choices": [], "timings": {"prompt_n": 1, "cache_n": 26, "predicted_n": 3}}\n\ndata: [DONE]\n\n'
    assert of_answer(usage) == Tokens(3, 4)
    assert of_stream(timings) == Tokens(27, 3, cached=26)
    assert of_stream(b'ken": 1}\n\ndata: ' + usage + b"\n\ndata: [DONE]\n\n") == Tokens(3, 4)
    assert of_stream(b"data: [DONE]\n\n") is None
    assert of_answer(b"no json") is None


def test_secrets_do_not_reach_the_log() -> None:
    key = "roost-" + "k" * 43
    event = {
        "event": f"refused Bearer {key}",
        "authorization": "Bearer x",
        "nomad_token": "x",
        "headers": {"X-Api-Key": "x", "accept": "y"},
        "list": [f"Authorization: bearer {key}", 5],
        "tokens_in": 27,
    }
    cleaned = Redactor()(None, "info", event)
    assert key not in json.dumps(cleaned)
    assert cleaned["authorization"] == cleaned["nomad_token"] == REDACTED
    assert cleaned["headers"] == {"X-Api-Key": REDACTED, "accept": "y"}
    assert cleaned["tokens_in"] == 27


@pytest.mark.parametrize(
    ("data", "whole"),
    [(b"", 0), (b"data: x", 0), (b"data: x\n\n", 9), (b"data: x\r\n\r\ndat", 11), (b"a\n\nb\n\nc", 6)],
)
def test_only_whole_events_are_passed_on(data: bytes, whole: int) -> None:
    assert whole_events(data) == whole


@given(st.lists(st.binary(max_size=20).filter(lambda part: b"\n" not in part), max_size=8), st.integers(0, 200))
def test_a_cut_never_lies_inside_an_event(parts: list[bytes], at: int) -> None:
    stream = b"".join(b"data: " + part + b"\n\n" for part in parts)
    cut = stream[:at]
    whole = whole_events(cut)
    assert whole == 0 or cut[:whole].endswith((b"\n\n", b"\r\n\r\n"))
    assert b"\n\n" not in cut[whole:]
