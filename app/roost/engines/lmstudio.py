"""Client of LM Studio's server.

https://lmstudio.ai/docs/developer/rest/list (`/api/v1/models`, LM Studio 0.4) and
https://lmstudio.ai/docs/developer/rest/endpoints (`/api/v0/models`, before that).
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from roost.engines.base import ModelReport, Report, Skill, State
from roost.engines.http_server import HttpServer, ProbeError, best_first

STATES = {"loaded": State.READY, "loading": State.LOADING}
CHAT = "/v1/chat/completions"
NO_RANKING = frozenset({Skill.RERANK})
IGNORED = frozenset({"functions", "function_call", "audio", "n"})


class _Config(BaseModel):
    context_length: int | None = None
    parallel: int | None = None


class _Instance(BaseModel):
    config: _Config = Field(default_factory=_Config)


class _Quantisation(BaseModel):
    name: str | None = None


class _Model(BaseModel):
    key: str
    type: str = "llm"
    quantization: _Quantisation | None = None
    size_bytes: int | None = None
    loaded_instances: list[_Instance] = Field(default_factory=list)
    max_context_length: int | None = None


class _Models(BaseModel):
    models: list[_Model]


class _OldModel(BaseModel):
    id: str
    type: str = "llm"  # llm, vlm, embeddings
    state: str = "not-loaded"
    quantization: str | None = None
    max_context_length: int | None = None
    loaded_context_length: int | None = None


class _OldModels(BaseModel):
    data: list[_OldModel]


def _lacks(kind: str) -> frozenset[Skill]:
    return NO_RANKING | {Skill.GENERATE if kind.startswith("embedding") else Skill.EMBED}


class LmStudioServer(HttpServer):
    """One LM Studio. It loads a cold model when that is asked for, so no token is asked for to see if it lives."""

    async def look(self, *, busy: bool) -> Report:
        """Ask which models there are and which are loaded."""
        del busy
        status, body = await self.get("/api/v1/models")
        if status == 200:
            models = _Models.model_validate_json(body).models
            found = {model.key: _report(model) for model in models}
            slots = max((i.config.parallel or 0 for model in models for i in model.loaded_instances), default=0)
        else:
            old = _OldModels.model_validate_json(await self.get_good("/api/v0/models")).data
            found, slots = {model.id: _old_report(model) for model in old}, 0
        if not found:
            raise ProbeError("it has no models")
        self._described = Report(State.READY, best_first(found), slots=slots or None, details=found)
        return self._described

    def ignores(self, path: str) -> frozenset[str]:
        """Return the fields that it does not heed; see `Engine.ignores`."""
        return IGNORED if path == CHAT else frozenset()


def _report(model: _Model) -> ModelReport:
    contexts = [instance.config.context_length for instance in model.loaded_instances if instance.config.context_length]
    return ModelReport(
        state=State.READY if model.loaded_instances else State.COLD,
        context=min(contexts, default=None),
        context_most=model.max_context_length,
        lacks=_lacks(model.type),
        memory=model.size_bytes if model.loaded_instances else None,
        quantisation=(model.quantization.name or "") if model.quantization else "",
    )


def _old_report(model: _OldModel) -> ModelReport:
    return ModelReport(
        state=STATES.get(model.state, State.COLD),
        context=model.loaded_context_length,
        context_most=model.max_context_length,
        lacks=_lacks(model.type),
        quantisation=model.quantization or "",
    )
