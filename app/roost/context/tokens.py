"""Counting tokens: by the server that will read them, or, where none can say, by a guess that learns from its usage."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Protocol

import aiohttp
from pydantic import BaseModel, JsonValue, ValidationError

from roost.context.api import ask
from roost.context.budget import BYTES_PER_TOKEN
from roost.context.messages import Message, to_wire
from roost.ops.errors import RoostError

COUNT_PATH = "/v1/count"
TIMEOUT_S = 30.0
NOT_COUNTED = (400, 501)
PER_MESSAGE = 8
"""Tokens that a template puts round a message, guessed high: the longest of the common ones is Llama 3's header."""
GUESS_MARGIN = 1.3
CACHED_TEXTS = 4096


class TokenCounter(Protocol):
    """Whoever says how many tokens something is for one model."""

    async def text(self, text: str) -> int:
        """Return how many tokens a text is, as part of a message."""
        ...

    async def prompt(self, messages: Sequence[Message], tools: Sequence[JsonValue] = ()) -> int:
        """Return how many tokens a request's prompt is, template and tool schemas included."""
        ...


class CountError(RoostError):
    """There is no count."""


class NotCountedError(CountError):
    """The server is there and does not count this: it has no way to, or its template does not take it."""


class Estimate:
    """A counter without a server: bytes, held high until `learn` has heard what prompts really were.

    It is in memory and the same for the same texts, so tests use it too.
    """

    def __init__(self, bytes_per_token: float = BYTES_PER_TOKEN / GUESS_MARGIN) -> None:
        self._bytes_per_token = bytes_per_token

    async def text(self, text: str) -> int:
        """Return the guess for a text, in tokens."""
        return self.of(text)

    async def prompt(self, messages: Sequence[Message], tools: Sequence[JsonValue] = ()) -> int:
        """Return the guess for a prompt, in tokens."""
        schemas = self.of(json.dumps(list(tools), ensure_ascii=False)) if tools else 0
        return schemas + sum(math.ceil(message.size / self._bytes_per_token) + PER_MESSAGE for message in messages)

    def of(self, text: str) -> int:
        """Return the guess for a text, in tokens."""
        return math.ceil(len(text.encode("utf-8", "replace")) / self._bytes_per_token)

    def learn(self, guessed: int, real: int) -> None:
        """Hear that a prompt guessed as `guessed` tokens was `real` ones: a guess that was low is not made again."""
        if guessed > 0 and real > guessed:
            self._bytes_per_token *= guessed / real


class Guarded:
    """Counts with a server, and guesses where it cannot: not every engine has a way to count."""

    def __init__(self, server: TokenCounter, estimate: Estimate | None = None) -> None:
        self._server = server
        self._estimate = estimate or Estimate()
        self.guessed = 0
        """How many counts were guesses: bounds are only as good as these."""

    async def text(self, text: str) -> int:
        """Return the server's count of a text, or a guess."""
        try:
            return await self._server.text(text)
        except NotCountedError:
            self.guessed += 1
            return await self._estimate.text(text)

    async def prompt(self, messages: Sequence[Message], tools: Sequence[JsonValue] = ()) -> int:
        """Return the server's count of a chat, or a guess."""
        try:
            return await self._server.prompt(messages, tools)
        except NotCountedError:
            self.guessed += 1
            return await self._estimate.prompt(messages, tools)

    def learn(self, guessed: int, real: int) -> None:
        """Hear what a prompt really was; see `Estimate.learn`."""
        self._estimate.learn(guessed, real)


class _Counted(BaseModel):
    """The answer of `/v1/count`."""

    tokens: int
    context: int | None = None


class ApiCounter:
    """Counts with the tokeniser and template of the server that a gateway would choose (`POST /v1/count`)."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession, key: str, model: str) -> None:
        self._url = base_url.rstrip("/") + COUNT_PATH
        self._session = session
        self._key = key
        self._model = model
        self._texts: dict[str, int] = {}
        self.context: int | None = None
        """Tokens of one request's context, as the server last said."""

    async def text(self, text: str) -> int:
        """Return the server's count of a text."""
        if not text:
            return 0
        known = self._texts.get(text)
        if known is None:
            known = await self._ask({"prompt": text})
            if len(self._texts) >= CACHED_TEXTS:
                del self._texts[next(iter(self._texts))]
            self._texts[text] = known
        return known

    async def prompt(self, messages: Sequence[Message], tools: Sequence[JsonValue] = ()) -> int:
        """Return the server's count of a chat."""
        return await self._ask({"messages": to_wire(messages), **({"tools": list(tools)} if tools else {})})

    async def _ask(self, body: dict[str, object]) -> int:
        try:
            status, text = await ask(self._session, self._url, self._key, {"model": self._model, **body}, TIMEOUT_S)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise CountError(
                f"The prompt could not be counted: {error or type(error).__name__}", fix="See `roost status`."
            ) from None
        if status in NOT_COUNTED:
            raise NotCountedError(f"The prompt could not be counted: {_words(text)}", fix="Use another engine.")
        if status != 200:
            raise CountError(f"The prompt could not be counted: {_words(text)}", fix="See `roost endpoints`.")
        try:
            counted = _Counted.model_validate_json(text)
        except ValidationError:
            raise CountError("The gateway's count is in no known form.", fix="Use one release everywhere.") from None
        self.context = counted.context or self.context
        return counted.tokens


def _words(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
