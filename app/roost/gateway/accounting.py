"""How many tokens an answer cost, read from its end after the client has all of it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

TAIL_BYTES = 8192
DATA = b"data: "


@dataclass(frozen=True)
class Tokens:
    """Tokens of the prompt and of the answer."""

    prompt: int
    completion: int


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0


class _Timings(BaseModel):
    prompt_n: int
    cache_n: int = 0
    predicted_n: int = 0


class _Answer(BaseModel):
    usage: _Usage | None = None
    timings: _Timings | None = None


def of_answer(body: bytes) -> Tokens | None:
    """Read one JSON answer or chunk: OpenAI's `usage`, else llama-server's `timings`."""
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError:
        return None
    if answer.usage:
        return Tokens(answer.usage.prompt_tokens, answer.usage.completion_tokens)
    if answer.timings:
        return Tokens(answer.timings.prompt_n + answer.timings.cache_n, answer.timings.predicted_n)
    return None


def of_stream(tail: bytes) -> Tokens | None:
    """Read the last part of an event stream, newest event first."""
    for line in reversed(tail.splitlines()):
        if line.startswith(DATA) and (b'"usage"' in line or b'"timings"' in line):
            tokens = of_answer(line.removeprefix(DATA))
            if tokens:
                return tokens
    return None
