"""Client of llama.cpp's `llama-server`, and of servers that speak the same OpenAI-like HTTP without its extras."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import aiohttp
from pydantic import BaseModel, BeforeValidator, Field

from roost.engines.base import Report, State

HEALTH_TIMEOUT_S = 5.0
FAILURES_UNTIL_DOWN = 2
STUCK = "it accepts connections but did not produce a token within {:.0f} s"


class _Meta(BaseModel):
    n_ctx: int | None = None


def _meta_or_empty(value: object) -> object:
    return {} if value is None else value


class _Model(BaseModel):
    id: str
    meta: Annotated[_Meta, BeforeValidator(_meta_or_empty)] = Field(default_factory=_Meta)


class _Models(BaseModel):
    data: list[_Model] = Field(min_length=1)


class _Defaults(BaseModel):
    n_ctx: int | None = None


class _Props(BaseModel):
    total_slots: int | None = None
    default_generation_settings: _Defaults = Field(default_factory=_Defaults)


class _Slot(BaseModel):
    is_processing: bool


class _Slots(BaseModel):
    slots: list[_Slot]

    def all_busy(self) -> bool:
        return bool(self.slots) and all(slot.is_processing for slot in self.slots)


class _ProbeError(Exception):
    """The server answered what a healthy one does not answer."""


@dataclass
class Pace:
    """How often and how long the expensive question is asked, in seconds."""

    canary_every_s: float = 30.0
    canary_timeout_s: float = 30.0
    health_timeout_s: float = HEALTH_TIMEOUT_S


class LlamaServer:
    """One `llama-server`.

    `/health` is cheap and can say ok while the server is stuck, so a real one-token request is made when the server
    is first seen, after each time it was not ready, and every `canary_every_s` seconds in which it proved nothing.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        key: Callable[[], str],
        pace: Pace | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = session
        self._key = key
        self._pace = pace or Pace()
        self._described: Report | None = None
        self._last_proof = float("-inf")
        self._failures = 0

    @property
    def base_url(self) -> str:
        """Return the address with scheme and port and without a trailing slash."""
        return self._base_url

    def headers(self) -> dict[str, str]:
        """Return the Authorization header, or nothing when no key is configured."""
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def proved(self) -> None:
        """Note that the server has just produced something for a client."""
        self._last_proof = time.monotonic()

    async def probe(self, *, busy: bool) -> Report:
        """Return the server's state; see `Engine.probe`."""
        try:
            report = await self._look(busy=busy)
        except (aiohttp.ClientConnectorError, ConnectionRefusedError) as error:
            report = Report(State.DOWN, reason=f"nothing answers there ({type(error).__name__})")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, _ProbeError) as error:
            self._failures += 1
            reason = str(error) or type(error).__name__
            if self._described is not None and self._failures < FAILURES_UNTIL_DOWN:
                return self._described
            report = Report(State.DOWN, reason=reason.splitlines()[0])
        if report.state is State.READY:
            self._failures = 0
        else:
            self._described = None
            self._last_proof = float("-inf")
        return report

    async def _look(self, *, busy: bool) -> Report:
        status, _ = await self._get("/health")
        if status == 503:
            return Report(State.LOADING, reason="it is loading its model")
        if status not in (200, 404):  # 404: a server without this page
            raise _ProbeError(f"its /health answered {status}")
        known = self._described
        described = known or await self._describe()
        if time.monotonic() - self._last_proof > self._pace.canary_every_s:
            asked_at = time.monotonic()
            try:
                await self._prove(described.models[0], busy=busy)
            except TimeoutError:
                if self._last_proof < asked_at:
                    return Report(State.DOWN, reason=STUCK.format(self._pace.canary_timeout_s), stuck=True)
            self._last_proof = max(self._last_proof, asked_at)
        self._described = described
        return described

    async def _describe(self) -> Report:
        status, body = await self._get("/v1/models")
        if status == 401:
            raise _ProbeError("it refuses the engine key")
        if status != 200:
            raise _ProbeError(f"its /v1/models answered {status}")
        models = _Models.model_validate_json(body).data
        report = Report(State.READY, models=tuple(model.id for model in models), context=models[0].meta.n_ctx)
        status, body = await self._get("/props")
        if status == 200:
            props = _Props.model_validate_json(body)
            context = props.default_generation_settings.n_ctx or report.context
            report = replace(report, context=context, slots=props.total_slots)
        return report

    async def _prove(self, model: str, *, busy: bool) -> None:
        """Make the server's main loop answer: by its list of slots when all are at work, else by one token.

        Raises:
            TimeoutError: it did not answer in time.
            _ProbeError: it answered with an error.
        """
        status, body = await self._get("/slots", self._pace.canary_timeout_s)
        if status == 200:
            if _Slots.model_validate_json(b'{"slots":' + body + b"}").all_busy():
                return
        elif busy:
            return  # without a list of slots our canary would only queue behind the request it works on
        await self._ask_a_token(model)

    async def _ask_a_token(self, model: str) -> None:
        canary = {
            "model": model,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 1,
            "temperature": 0,
        }
        async with asyncio.timeout(self._pace.canary_timeout_s):
            async with self._session.post(
                f"{self._base_url}/v1/chat/completions", json=canary, headers=self.headers()
            ) as answer:
                await answer.read()
                if answer.status != 200:
                    raise _ProbeError(f"it answered a one-token request with {answer.status}")

    async def _get(self, path: str, timeout_s: float | None = None) -> tuple[int, bytes]:
        async with asyncio.timeout(timeout_s or self._pace.health_timeout_s):
            async with self._session.get(f"{self._base_url}{path}", headers=self.headers()) as answer:
                return answer.status, await answer.read()


class LlamaCppPythonServer(LlamaServer):
    """One `roost.engines.llama_cpp_python_server`: it works on one request at a time and has no list of slots."""

    async def _prove(self, model: str, *, busy: bool) -> None:
        if not busy:  # a canary would only queue behind the request it works on
            await self._ask_a_token(model)


CLIENTS: dict[str, type[LlamaServer]] = {"llama.cpp": LlamaServer, "llama-cpp-python": LlamaCppPythonServer}


def client_of(engine: str) -> type[LlamaServer]:
    """Return the client for an engine's name; a name that is not known is taken for llama.cpp's own server."""
    return CLIENTS.get(engine, LlamaServer)
