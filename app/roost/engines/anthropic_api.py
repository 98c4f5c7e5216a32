"""Client of a service that speaks Anthropic's API: https://docs.anthropic.com/en/api/overview.

`/v1/messages` goes through as it is, `/v1/chat/completions` is translated both ways (`anthropic_chat.py`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import aiohttp
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from roost.engines.anthropic_chat import (
    IGNORED,
    NOT_ITS_SHAPE,
    ChatStream,
    UntranslatableError,
    completion_of,
    request_of,
)
from roost.engines.base import Answer, ModelReport, Report, Skill, State
from roost.engines.http_server import ProbeError, WholeAnswer
from roost.engines.llama_count import Counted
from roost.engines.openai_api import OpenAiService

CHAT, MESSAGES, COUNT = "/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"
VERSION = "2023-06-01"  # https://docs.anthropic.com/en/api/versioning
DEFAULT_ANSWER = 4096  # tokens; the protocol wants a limit, and OpenAI's clients need not give one
NO_SUCH_ROUTE = b'{"error": {"message": "there is no such route", "type": "not_found_error"}}'
NO_MESSAGE = b'{"error": {"message": "its answer is no message", "type": "server_error"}}'
TEXT_ONLY = frozenset({Skill.EMBED, Skill.RERANK})


class _Model(BaseModel):
    id: str
    max_input_tokens: int | None = None
    max_tokens: int | None = None  # of an answer


class _Models(BaseModel):
    data: list[_Model]


class AnthropicService(OpenAiService):
    """A service beyond the fleet."""

    _answers: Mapping[str, int] = MappingProxyType({})

    def headers(self) -> dict[str, str]:
        """Return the headers of Anthropic's protocol."""
        key = self._key()
        return {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}

    async def look(self, *, busy: bool) -> Report:
        """Ask for its models."""
        del busy
        found = _Models.model_validate_json(await self.get_good("/v1/models?limit=1000")).data
        if not found:
            raise ProbeError("it has no models")
        self._answers = {model.id: model.max_tokens for model in found if model.max_tokens}
        details = {model.id: ModelReport(context=model.max_input_tokens) for model in found}
        self._described = Report(State.READY, tuple(details), details=details, lacks=TEXT_ONLY)
        return self._described

    def ignores(self, path: str) -> frozenset[str]:
        """Return what cannot be translated; see `Engine.ignores`."""
        return IGNORED if path == CHAT else frozenset()

    def _translated(self, body: bytes) -> bytes:
        request = from_json(body)
        return request_of(request, self._answers.get(request.get("model"), DEFAULT_ANSWER))

    async def count(self, path: str, body: bytes) -> int | None:
        """Have a chat or a message counted there; see `Engine.count`."""
        if path not in (CHAT, MESSAGES):
            return None
        try:
            request = from_json(self._translated(body) if path == CHAT else body)
        except UntranslatableError:
            return None
        for name in ("max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "metadata"):
            request.pop(name, None)  # the counting route takes none of them
        status, answer = await self.post(COUNT, _json(request))
        try:
            return Counted.model_validate_json(answer).input_tokens if status == 200 else None
        except ValidationError:
            return None

    @asynccontextmanager
    async def send(self, path: str, body: bytes, limits: aiohttp.ClientTimeout) -> AsyncIterator[Answer]:
        """Post a message, or a chat as a message; there is nothing else."""
        if path in (MESSAGES, COUNT):
            async with super().send(path, body, limits) as answer:
                yield answer
            return
        if path != CHAT:
            yield WholeAnswer(404, NO_SUCH_ROUTE)
            return
        request = from_json(body)
        try:
            translated = self._translated(body)
        except UntranslatableError as error:
            yield WholeAnswer(400, _json({"error": {"message": str(error), "type": "invalid_request_error"}}))
            return
        async with super().send(MESSAGES, translated, limits) as answer:
            if answer.status != 200:
                yield answer
            elif answer.content_type == "text/event-stream":
                options = request.get("stream_options") or {}
                yield ChatStream(answer.content, include_usage=bool(options.get("include_usage")))
            else:
                body = await answer.read()
                try:
                    whole = WholeAnswer(200, completion_of(body))
                except NOT_ITS_SHAPE:
                    whole = WholeAnswer(502, NO_MESSAGE)
                yield whole


def _json(document: object) -> bytes:
    return json.dumps(document).encode()
