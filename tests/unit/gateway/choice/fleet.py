"""Scripted model servers of different sizes behind a gateway, for what is chosen among them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.fakes import FakeEngine, fake_engine
from tests.support.gateway import Served, quick_settings, served

PATH = "/v1/chat/completions"
SIZES = {"main": ("mid", 8), "router": ("tiny", 1), "specialist": ("big", 30), "coding": ("code", 20)}


@dataclass(frozen=True)
class Fleet:
    """The gateway and the engines behind it, by slot; what was answered, the last at the end."""

    gateway: Served
    engines: dict[str, FakeEngine]
    answers: list[dict[str, object]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def ask(self, text: str, headers: dict[str, str] | None = None, **more: object) -> tuple[int, str, str]:
        """Ask for an answer; returns status, the model that gave it, and the header that says why."""
        body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
        async with self.gateway.client.post(self.gateway.url + PATH, json=body, headers=headers) as answer:
            self.answers.append(await answer.json())
            self.headers.append(dict(answer.headers))
            return answer.status, answer.headers.get("x-roost-model", ""), answer.headers.get("x-roost-route", "")

    async def get(self, path: str) -> tuple[int, dict[str, object]]:
        """Ask the gateway for a document."""
        async with self.gateway.client.get(self.gateway.url + path) as answer:
            return answer.status, await answer.json()

    async def decisions(self) -> list[dict[str, object]]:
        """Return the last decisions, the newest first."""
        data = (await self.get("/roost/v1/decisions"))[1]["data"]
        assert isinstance(data, list)
        return data


@asynccontextmanager
async def fleet(folder: Path, *slots: str, **more: object) -> AsyncIterator[Fleet]:
    """Run an engine of its size for each slot, and the gateway in front of them; `more` are settings."""
    async with AsyncExitStack() as stack:
        engines: dict[str, FakeEngine] = {}
        for slot in slots:
            model, parameters = SIZES.get(slot, (slot, 4))
            engine = fake_engine(model=model, parameters=parameters, props={"modalities": {"vision": slot == "vision"}})
            engines[slot] = await stack.enter_async_context(engine)
        urls = ",".join(f"{slot}={engine.url}" for slot, engine in engines.items())
        gateway = await stack.enter_async_context(served(quick_settings(folder, static_endpoints=urls, **more)))
        await gateway.ready(len(engines))
        yield Fleet(gateway, engines)
