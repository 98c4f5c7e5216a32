"""Client of Ollama's server: its own routes say what there is, its OpenAI-compatible ones answer.

https://github.com/ollama/ollama/blob/main/docs/api.md and api/types.go; seen at its sources of August 2026.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from roost.engines.base import ModelReport, Report, Skill, State
from roost.engines.http_server import HttpServer, ProbeError, best_first

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOO_LONG = "context length"  # in the words of llm/llama_server.go
# What its OpenAI-compatible routes read and do not use (openai/openai.go has no such fields).
IGNORED = {
    CHAT: frozenset({"n", "logit_bias", "functions", "function_call", "audio", "web_search_options"}),
    COMPLETIONS: frozenset({"n", "logit_bias", "best_of", "echo"}),
}


class _Details(BaseModel):
    quantization_level: str | None = None


class _Listed(BaseModel):
    name: str
    digest: str = ""
    remote_host: str | None = None  # its weights are not here: it would send the prompt on to somebody else
    details: _Details = Field(default_factory=_Details)


class _Tags(BaseModel):
    models: list[_Listed] | None = None


class _Loaded(BaseModel):
    name: str
    size: int | None = None
    size_vram: int | None = None
    context_length: int | None = None


class _Running(BaseModel):
    models: list[_Loaded] | None = None


class _Shown(BaseModel):
    capabilities: list[str] | None = None
    model_info: dict[str, object] | None = None

    def context(self) -> int | None:
        """Return the longest context that the model was made for, in tokens."""
        found = [v for k, v in (self.model_info or {}).items() if k.endswith(".context_length") and isinstance(v, int)]
        return max(found, default=None)

    def lacks(self) -> frozenset[Skill]:
        """Return what the model cannot do; one that says nothing of itself generates text."""
        able = self.capabilities or ["completion"]
        found = {Skill.RERANK}
        found |= set() if "completion" in able else {Skill.GENERATE}
        found |= set() if "embedding" in able else {Skill.EMBED}
        return frozenset(found)


class _Version(BaseModel):
    version: str


class _Evaluated(BaseModel):
    prompt_eval_count: int


class OllamaServer(HttpServer):
    """One `ollama serve`. It loads a cold model by itself when it is asked for, so no token is asked for to see if it
    lives: that would load one. Models that it only passes on to a cloud are left out unless `allowed` names them."""

    _shown: Mapping[str, _Shown] = MappingProxyType({})

    async def look(self, *, busy: bool) -> Report:
        """Ask which models there are and which are loaded; what each of them can is asked once."""
        del busy
        version = _Version.model_validate_json(await self.get_good("/api/version")).version
        listed = _Tags.model_validate_json(await self.get_good("/api/tags")).models or []
        running = _Running.model_validate_json(await self.get_good("/api/ps")).models or []
        here = [model for model in listed if not model.remote_host or model.name in self._allowed]
        if not here:
            raise ProbeError("it has no models")
        loaded = {model.name: model for model in running}
        self._shown = {m.digest: self._shown.get(m.digest) or await self._show(m.name) for m in here}
        found = {model.name: _report(model, self._shown[model.digest], loaded.get(model.name)) for model in here}
        self._described = Report(State.READY, best_first(found), details=found, version=version)
        return self._described

    async def _show(self, name: str) -> _Shown:
        status, body = await self.post("/api/show", json.dumps({"model": name}).encode())
        return _Shown.model_validate_json(body) if status == 200 else _Shown()

    def ignores(self, path: str) -> frozenset[str]:
        """Return the fields that it does not heed; see `Engine.ignores`."""
        return IGNORED.get(path, frozenset())

    async def count(self, path: str, body: bytes) -> int | None:
        """Count a chat by having its prompt computed, without cutting it; the request then finds it in the cache.

        Ollama tokenises for nobody, and would leave out the oldest messages of a chat that does not fit. Of such a
        chat it says no number, so the answer is one more than its context then.
        """
        if path != CHAT:
            return None
        try:
            question = to_ollama(from_json(body))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # it is not shaped as the API has it, which the server says better
        status, answer = await self.post("/api/chat", json.dumps(question).encode(), self._pace.canary_timeout_s)
        if status == 400 and TOO_LONG in answer.decode(errors="replace"):
            context = self._described.context_of(str(question["model"])) if self._described else None
            return None if context is None else context + 1
        try:
            return _Evaluated.model_validate_json(answer).prompt_eval_count if status == 200 else None
        except ValidationError:
            return None


def to_ollama(request: dict[str, object]) -> dict[str, object]:
    """Return a chat of OpenAI's as Ollama's own: one token of an answer, and nothing cut."""
    messages = request.get("messages")
    question: dict[str, object] = {
        "model": request.get("model"),
        "messages": [_message(message) for message in (messages if isinstance(messages, list) else [])],
        "stream": False,
        "truncate": False,
        "shift": False,
        "options": {"num_predict": 1},
    }
    return question | ({"tools": request["tools"]} if request.get("tools") else {})


def _message(message: dict[str, object]) -> dict[str, object]:
    content, calls = message.get("content"), message.get("tool_calls")
    texts, images = [content] if isinstance(content, str) else [], []
    for part in content if isinstance(content, list) else []:
        if part.get("type") == "text":
            texts.append(part.get("text", ""))
        elif part.get("type") == "image_url":
            images.append(str(part["image_url"]["url"]).partition(",")[2])
    found: dict[str, object] = {"role": message["role"], "content": "\n".join(texts)}
    if images:
        found["images"] = images
    if isinstance(calls, list):
        found["tool_calls"] = [
            {"function": {"name": c["function"]["name"], "arguments": from_json(c["function"]["arguments"] or "{}")}}
            for c in calls
        ]
    return found


def _report(model: _Listed, shown: _Shown, loaded: _Loaded | None) -> ModelReport:
    return ModelReport(
        state=State.READY if loaded else State.COLD,
        context=(loaded.context_length or None) if loaded else None,
        context_most=shown.context(),
        lacks=shown.lacks(),
        memory=loaded.size if loaded else None,
        vram=loaded.size_vram if loaded else None,
        quantisation=model.details.quantization_level or "",
    )
