"""Client of any service that speaks OpenAI's API, of a cloud's most of all: https://platform.openai.com/docs/api-reference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from pydantic import AliasChoices, BaseModel, Field

from roost.engines.base import Answer, ModelReport, Report, State
from roost.engines.http_server import HttpServer, ProbeError, WholeAnswer

READY_PAUSE_S, DOWN_PAUSE_S = 30.0, 5.0
KEY_REFUSED = b'{"error": {"message": "it refuses the key of this endpoint", "type": "server_error"}}'


class _Model(BaseModel):
    """OpenAI itself says nothing of the context; others do, each with a word of its own."""

    id: str
    context: int | None = Field(
        default=None,
        validation_alias=AliasChoices("context_length", "context_window", "max_model_len", "max_context_length"),
    )


class _Models(BaseModel):
    data: list[_Model]


class OpenAiService(HttpServer):
    """A service beyond the fleet. It is asked for its list of models only, seldom: tokens cost money there."""

    @property
    def pause_s(self) -> float:
        """Return how long to wait: others count how often they are asked."""
        return READY_PAUSE_S if self._described else DOWN_PAUSE_S

    async def look(self, *, busy: bool) -> Report:
        """Ask for its models; where it has no list those it may offer are believed to be there."""
        del busy
        status, body = await self.get("/v1/models")
        if status in (404, 405) and self._allowed:
            found = [_Model(id=name) for name in sorted(self._allowed)]
        else:
            found = _Models.model_validate_json(body if status == 200 else await self.get_good("/v1/models")).data
        if not found:
            raise ProbeError("it has no models")
        details = {model.id: ModelReport(context=model.context) for model in found}
        self._described = Report(State.READY, tuple(details), details=details)
        return self._described

    @asynccontextmanager
    async def send(self, path: str, body: bytes, limits: aiohttp.ClientTimeout) -> AsyncIterator[Answer]:
        """Post a request as it is; what the service says of our key is for nobody's eyes."""
        async with super().send(path, body, limits) as answer:
            yield WholeAnswer(answer.status, KEY_REFUSED) if answer.status in (401, 403) else answer
