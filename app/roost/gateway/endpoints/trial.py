"""Trying an endpoint: what a probe says, and how long one token takes."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

import aiohttp

from roost.engines.base import Engine, Report, Skill, State
from roost.gateway.endpoints.documents import model_document

CHAT = "/v1/chat/completions"
ASK_TIMEOUT_S = 120.0  # a cold model is loaded first
LIMITS = aiohttp.ClientTimeout(total=None, sock_connect=3.0)


@dataclass(frozen=True)
class Trial:
    """What was found. `answered` is None where no token was asked for; times are in milliseconds."""

    report: Report
    probe_ms: float
    model: str = ""
    answered: bool | None = None
    answer_ms: float | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Say whether all that was tried went well."""
        return self.report.state is State.READY and self.answered is not False

    def document(self) -> dict[str, object]:
        """Return it as a document."""
        report = self.report
        return {
            "ok": self.ok,
            "state": report.state.value,
            "reason": report.reason or self.problem,
            "version": report.version,
            "models": [model_document(model, report) for model in report.models],
            "probe_ms": round(self.probe_ms, 1),
            "model": self.model or None,
            "answered": self.answered,
            "answer_ms": None if self.answer_ms is None else round(self.answer_ms, 1),
        }


async def try_endpoint(engine: Engine, model: str = "", *, ask: bool = True) -> Trial:
    """Probe a server, then ask for one token: of `model`, else of the first that is warm and generates text.

    A cold model is asked for by its name only: to ask it is to load it.
    """
    began = time.monotonic()
    report = await engine.probe(busy=True)
    probe_ms = (time.monotonic() - began) * 1000
    warm = [m for m in report.models if report.state_of(m) is State.READY and Skill.GENERATE not in report.lacks_of(m)]
    chosen = model or next(iter(warm), "")
    if report.state is not State.READY or not ask or not chosen:
        return Trial(report, probe_ms)
    body = {"model": chosen, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    began = time.monotonic()
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S), engine.send(CHAT, json.dumps(body).encode(), LIMITS) as answer:
            content = await answer.read()
            problem = "" if answer.status == 200 else f"it answered {answer.status} to a chat: {_said(content)}"
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        problem = f"it did not answer a chat ({type(error).__name__})"
    took = (time.monotonic() - began) * 1000
    return Trial(report, probe_ms, chosen, not problem, took, problem)


def _said(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return "no reason"
