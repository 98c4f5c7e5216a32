"""Failures as clients of the OpenAI API expect them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError
from starlette.responses import Response

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"


class ApiError(Exception):
    """A refusal with an HTTP status and OpenAI's fields; `retry_after_s` becomes a header."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID_REQUEST,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """Return the JSON document `{"error": {...}}`."""
        fields = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": fields}).encode()

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return the error as an HTTP response."""
        extra = dict(headers or {})
        if self.retry_after_s is not None:
            extra["retry-after"] = str(self.retry_after_s)
        if self.status == 401:
            extra["www-authenticate"] = "Bearer"
        return Response(self.body(), self.status, extra, media_type="application/json")


def unauthorized() -> ApiError:
    """No key, or a wrong one."""
    return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")


def model_not_found(name: str) -> ApiError:
    """No endpoint has ever offered this model."""
    shown = name if len(name) <= 100 else f"{name[:100]}…"
    return ApiError(404, f"The model {shown!r} does not exist.", code="model_not_found", param="model")


def model_unavailable(name: str, why: str) -> ApiError:
    """The model is known and did not become ready in time."""
    message = f"The model {name!r} is not ready: {why}."
    return ApiError(503, message, kind=SERVER_ERROR, code="model_unavailable", retry_after_s=5)


def engine_failed(why: str) -> ApiError:
    """The model server broke off, or answered what it should not."""
    return ApiError(502, f"The model server failed: {why}.", kind=SERVER_ERROR, code="engine_failed")


class _EngineError(BaseModel):
    message: str = ""
    type: str = ""


class _EngineAnswer(BaseModel):
    error: _EngineError


PASSED_ON = frozenset({400, 413, 422, 429, 501})


def from_engine(status: int, body: bytes) -> ApiError:
    """Translate a model server's refusal; what is the client's fault keeps its status, all else becomes 502."""
    try:
        error = _EngineAnswer.model_validate_json(body).error
    except ValidationError:
        error = _EngineError()
    if status not in PASSED_ON:
        return engine_failed(f"it answered {status}" + (f" ({error.message})" if error.message else ""))
    message = error.message or f"The model server refused the request with status {status}."
    if error.type == "exceed_context_size_error":
        return ApiError(status, message, code="context_length_exceeded", param="messages")
    kind = "rate_limit_error" if status == 429 else SERVER_ERROR if status == 501 else INVALID_REQUEST
    return ApiError(status, message, kind=kind)
