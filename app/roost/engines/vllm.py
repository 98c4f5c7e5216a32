"""Client of vLLM's OpenAI-compatible server.

Routes: https://docs.vllm.ai/en/stable/serving/online_serving.html and vllm/entrypoints/serve/tokenize/protocol.py;
metrics: https://docs.vllm.ai/en/stable/usage/metrics.html (v1 names, and those of v0 where they differ).
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from roost.engines.base import Answer, Load, Report, Skill, State
from roost.engines.http_server import HttpServer, ProbeError, StuckError, WholeAnswer
from roost.engines.llama_count import COMPLETIONS, prompts
from roost.engines.prometheus import read_samples, total

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
COUNTED = ("model", "messages", "tools", "chat_template_kwargs")
STUCK = "it accepts connections but did not produce a token within {:.0f} s"
CANARY: dict[str, object] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}
TRIALS: dict[Skill, tuple[str, dict[str, object]]] = {
    Skill.EMBED: ("/v1/embeddings", {"input": "Hi"}),
    Skill.RERANK: ("/v1/rerank", {"query": "Hi", "documents": ["Hi"]}),
}
# https://docs.vllm.ai/en/stable/serving/online_serving.html: "suffix parameter is not supported".
IGNORED = {COMPLETIONS: frozenset({"suffix"}), CHAT: frozenset({"functions", "function_call", "audio"})}


class _Model(BaseModel):
    id: str
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model] = Field(min_length=1)


class _Version(BaseModel):
    version: str = ""


class _Count(BaseModel):
    count: int


class _Text(BaseModel):
    prompt: str


def load_of(metrics: bytes) -> Load:
    """Read what a server has to do from its metrics; several engines in one server are added up."""
    samples = read_samples(metrics)
    running, waiting = total(samples, "vllm:num_requests_running"), total(samples, "vllm:num_requests_waiting")
    usage = samples.get("vllm:kv_cache_usage_perc") or samples.get("vllm:gpu_cache_usage_perc")
    hits = total(samples, "vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total")
    queries = total(samples, "vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total")
    return Load(
        running=None if running is None else int(running),
        waiting=None if waiting is None else int(waiting),
        cache_used=sum(usage) / len(usage) if usage else None,
        cache_hits=hits / queries if hits is not None and queries else None,
    )


class VllmServer(HttpServer):
    """One `vllm serve`. Its health page tells of the engine; a token is asked for while it has nothing to do."""

    async def look(self, *, busy: bool) -> Report:
        """Ask for its health, its models, what it has to do, and now and then for a real token."""
        status, _ = await self.get("/health")
        if status != 200:
            raise ProbeError(f"its /health answered {status}")
        report = self._described or await self._describe()
        report = replace(report, load=await self._load(report.load))
        idle = not busy and not report.load.running and not report.load.waiting
        if idle and time.monotonic() - self._last_proof > self._pace.canary_every_s:
            await self._prove(report)
        self._described = report
        return report

    async def _describe(self) -> Report:
        models = _Models.model_validate_json(await self.get_good("/v1/models")).data
        status, body = await self.get("/version")
        version = _Version.model_validate_json(body).version if status == 200 else ""
        return Report(
            State.READY,
            models=tuple(model.id for model in models),
            context=models[0].max_model_len,
            lacks=await self._lacks(models[0].id),
            version=version,
        )

    async def _lacks(self, model: str) -> frozenset[Skill]:
        """Ask for the least of each skill: a server has one kind of model, and says so without any work."""
        shown = set()
        for skill, (path, trial) in TRIALS.items():
            try:
                status, _ = await self.post(path, json.dumps({"model": model, **trial}).encode())
            except TimeoutError:
                continue
            if status == 200:
                shown.add(skill)
        return frozenset(TRIALS.keys() - shown) | ({Skill.GENERATE} if shown else set())

    async def _load(self, before: Load) -> Load:
        try:
            status, body = await self.get("/metrics", 1.0)
        except TimeoutError:
            return before
        return load_of(body) if status == 200 else Load()

    async def _prove(self, report: Report) -> None:
        path, question = next((trial for skill, trial in TRIALS.items() if skill not in report.lacks), (CHAT, CANARY))
        asked_at = time.monotonic()
        body = json.dumps({"model": report.models[0], **question}).encode()
        try:
            status, _ = await self.post(path, body, self._pace.canary_timeout_s)
        except TimeoutError:
            if self._last_proof < asked_at:
                raise StuckError(STUCK.format(self._pace.canary_timeout_s)) from None
            return
        if status != 200:
            raise ProbeError(f"it answered a one-token request with {status}")
        self._last_proof = max(self._last_proof, asked_at)

    def ignores(self, path: str) -> frozenset[str]:
        """Return the fields that it does not heed; see `Engine.ignores`."""
        return IGNORED.get(path, frozenset())

    async def count(self, path: str, body: bytes) -> int | None:
        """Have it tokenise a chat with its template, or a text; see `Engine.count`."""
        if path == MESSAGES:
            return None
        request = from_json(body)
        if path == CHAT:
            return await self._counted({name: request[name] for name in COUNTED if name in request})
        if path != COMPLETIONS:
            return None
        asked = [
            prompt if isinstance(prompt, int) else await self._counted({"model": request["model"], "prompt": prompt})
            for prompt in prompts(body)
        ]
        known = [count for count in asked if count is not None]
        return max(known) if known and len(known) == len(asked) else None

    async def _counted(self, question: Mapping[str, object]) -> int | None:
        status, answer = await self.post("/tokenize", json.dumps(question).encode())
        try:
            return _Count.model_validate_json(answer).count if status == 200 else None
        except ValidationError:
            return None

    @asynccontextmanager
    async def send(self, path: str, body: bytes, limits: aiohttp.ClientTimeout) -> AsyncIterator[Answer]:
        """Post a request; what llama.cpp's server calls `content` when it tokenises is vLLM's `prompt`."""
        if path == "/tokenize":
            request = from_json(body)
            request["prompt"] = request.pop("content")
            body = json.dumps(request).encode()
        async with super().send(path, body, limits) as answer:
            if path == "/detokenize" and answer.status == 200:
                text = _Text.model_validate_json(await answer.read()).prompt
                yield WholeAnswer(200, json.dumps({"content": text}).encode())
            else:
                yield answer
