"""How many tokens an answer cost and how long the model server worked, read from the answer's end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import BaseModel, ValidationError

TAIL_BYTES = 8192
DATA = b"data: "


@dataclass(frozen=True)
class Tokens:
    """Tokens of the prompt, those of them that came from the cache, and of the answer; time of the engine in ms."""

    prompt: int
    completion: int
    cached: int = 0
    engine_ms: float = 0.0  # 0 where the model server does not say


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Timings(BaseModel):
    prompt_n: int
    cache_n: int = 0
    predicted_n: int = 0
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0


class _Answer(BaseModel):
    usage: _Usage | None = None
    timings: _Timings | None = None


def of_answer(body: bytes) -> Tokens | None:
    """Read one JSON answer or chunk: OpenAI's `usage`, and llama-server's `timings` for what that leaves out."""
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError:
        return None
    usage, timings = answer.usage, answer.timings
    if timings is None and usage is None:
        return None
    tokens = Tokens(0, 0)
    if timings:
        total = timings.prompt_n + timings.cache_n
        tokens = Tokens(total, timings.predicted_n, timings.cache_n, timings.prompt_ms + timings.predicted_ms)
    if usage:
        tokens = replace(tokens, prompt=usage.prompt_tokens, completion=usage.completion_tokens)
        if usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens is not None:
            tokens = replace(tokens, cached=usage.prompt_tokens_details.cached_tokens)
    return tokens


def of_stream(tail: bytes) -> Tokens | None:
    """Read the last part of an event stream, newest event first."""
    for line in reversed(tail.splitlines()):
        if line.startswith(DATA) and (b'"usage"' in line or b'"timings"' in line):
            tokens = of_answer(line.removeprefix(DATA))
            if tokens:
                return tokens
    return None
