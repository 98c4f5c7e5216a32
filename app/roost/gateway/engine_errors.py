"""What model servers refuse, as clients of the API expect to hear it."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from roost.engines.base import Skill
from roost.gateway.errors import (
    INVALID_REQUEST,
    RATE_LIMIT,
    SERVER_ERROR,
    SKILLS,
    ApiError,
    engine_failed,
    not_offered,
    too_long,
)
from roost.gateway.request.kinds import CHAT, Kind


class _EngineError(BaseModel):
    message: str = ""
    type: str = ""
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _EngineAnswer(BaseModel):
    error: _EngineError


PASSED_ON = frozenset({400, 413, 422, 429, 501})
# What llama-server (build 11669) answers 500 to although the request is at fault.
CLIENTS_FAULT = ("Failed to parse tools", "input is not supported", "is too large to process")
NO_POOLING = "Pooling type 'none'"


def from_engine(status: int, body: bytes, kind: Kind) -> ApiError:
    """Translate a model server's refusal; what is the client's fault keeps its status, all else becomes 502."""
    try:
        error = _EngineAnswer.model_validate_json(body).error
    except ValidationError:
        error = _EngineError()
    if status == 404 and kind is not CHAT:
        return not_offered(f"{kind.path}: the model server has no {kind.upstream}")
    if kind.skill in (Skill.EMBED, Skill.RERANK) and (status == 501 or NO_POOLING in error.message):
        return ApiError(400, f"The model does not {SKILLS[kind.skill]}.", code="model_not_able", param="model")
    if status == 500 and any(words in error.message for words in CLIENTS_FAULT):
        status = 400
    if status not in PASSED_ON:
        return engine_failed(f"it answered {status}" + (f" ({error.message})" if error.message else ""))
    message = error.message or f"The model server refused the request with status {status}."
    if error.type == "exceed_context_size_error" and error.n_prompt_tokens is not None and error.n_ctx is not None:
        return too_long(error.n_prompt_tokens, None, error.n_ctx, kind.prompt_field, kind.limit_field)
    if error.type == "exceed_context_size_error" or "is too large to process" in message:
        return ApiError(status, message, code="context_length_exceeded", param=kind.prompt_field)
    error_type = RATE_LIMIT if status == 429 else SERVER_ERROR if status == 501 else INVALID_REQUEST
    return ApiError(status, message, kind=error_type)
