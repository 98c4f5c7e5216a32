"""How many tokens an answer cost and how long the model server worked, read from the answer's end."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from pydantic import AliasChoices, BaseModel, Field, ValidationError

TAIL_BYTES = 4096  # the event that has the numbers takes a fourth of that
DATA = b"data: "


@dataclass(frozen=True)
class Tokens:
    """Tokens of the prompt, those of them that came from the cache, and of the answer; time of the engine in ms."""

    prompt: int
    completion: int
    cached: int = 0
    engine_ms: float = 0.0  # 0 where the model server does not say


class Tail:
    """The end of a stream: its newest pieces, as they are, that together have TAIL_BYTES if there are so many."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        pieces = self._pieces
        pieces.append(piece)
        self._size += len(piece)
        while self._size - len(pieces[0]) >= TAIL_BYTES:
            self._size -= len(pieces.popleft())

    def text(self) -> bytes:
        """Return it in one."""
        return b"".join(self._pieces)


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    """In the words of OpenAI's chats, of its responses, or of Anthropic, who counts what was cached apart."""

    prompt_tokens: int = Field(validation_alias=AliasChoices("prompt_tokens", "input_tokens"))
    completion_tokens: int = Field(default=0, validation_alias=AliasChoices("completion_tokens", "output_tokens"))
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    prompt_tokens_details: _Details | None = Field(
        default=None, validation_alias=AliasChoices("prompt_tokens_details", "input_tokens_details")
    )

    @property
    def prompt(self) -> int:
        """Return the tokens of the whole prompt."""
        return self.prompt_tokens + self.cache_read_input_tokens + self.cache_creation_input_tokens


class _Written(BaseModel):
    output_tokens: int


class _MessageEnd(BaseModel):
    usage: _Written


class _Inner(BaseModel):
    usage: _Usage | None = None


class _Timings(BaseModel):
    prompt_n: int
    cache_n: int = 0
    predicted_n: int = 0
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0


class _Answer(BaseModel):
    usage: _Usage | None = None
    response: _Inner | None = None  # the last event of a streamed response
    message: _Inner | None = None  # the first event of a streamed message
    timings: _Timings | None = None


def of_answer(body: bytes) -> Tokens | None:
    """Read one JSON answer or chunk: OpenAI's `usage`, and llama-server's `timings` for what that leaves out."""
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError:
        return None
    inner = answer.response or answer.message
    usage, timings = answer.usage or (inner.usage if inner else None), answer.timings
    if timings is None and usage is None:
        return None
    tokens = Tokens(0, 0)
    if timings:
        total = timings.prompt_n + timings.cache_n
        tokens = Tokens(total, timings.predicted_n, timings.cache_n, timings.prompt_ms + timings.predicted_ms)
    if usage:
        tokens = replace(tokens, prompt=usage.prompt, completion=usage.completion_tokens)
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
        if cached is not None or usage.cache_read_input_tokens:
            tokens = replace(tokens, cached=cached or usage.cache_read_input_tokens)
    return tokens


def of_stream(tail: bytes, head: bytes = b"") -> Tokens | None:
    """Read the last part of an event stream, newest event first; for Anthropic's messages its first part, too."""
    for line in reversed(tail.splitlines()):
        if line.startswith(DATA) and (b'"usage"' in line or b'"timings"' in line):
            data = line.removeprefix(DATA)
            tokens = of_answer(data) or _of_message(data, head)
            if tokens:
                return tokens
    return None


def _of_message(end: bytes, head: bytes) -> Tokens | None:
    """Read `message_delta`, which says how much was written, with `message_start`, which says how much was read."""
    try:
        written = _MessageEnd.model_validate_json(end).usage.output_tokens
    except ValidationError:
        return None
    for line in head.splitlines():
        read = of_answer(line.removeprefix(DATA)) if line.startswith(DATA) else None
        if read:
            return Tokens(read.prompt, written)
    return None
