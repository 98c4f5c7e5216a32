"""Failures as clients of the OpenAI API expect them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError
from starlette.responses import Response

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
RATE_LIMIT = "rate_limit_error"
PERMISSION = "permission_error"


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
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the JSON document `{"error": {...}}`."""
        fields = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": fields}).encode()

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return the error as an HTTP response."""
        extra = {**(headers or {}), **self.headers}
        if self.retry_after_s is not None:
            extra["retry-after"] = str(self.retry_after_s)
        if self.status == 401:
            extra["www-authenticate"] = "Bearer"
        return Response(self.body(), self.status, extra, media_type="application/json")


def unauthorized() -> ApiError:
    """No key, or a wrong one."""
    return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")


def expired_key() -> ApiError:
    """The key was good once."""
    return ApiError(401, "This API key has expired.", code="expired_api_key")


def too_many_wrong_keys(retry_after_s: int) -> ApiError:
    """Somebody guesses, or a program does not notice that its key is wrong."""
    message = f"Incorrect API key provided, too often. Try again in {retry_after_s} s."
    return ApiError(429, message, kind=RATE_LIMIT, code="too_many_wrong_keys", retry_after_s=retry_after_s)


def not_allowed(role: str, method: str, path: str) -> ApiError:
    """The key's role may not do this."""
    return ApiError(
        403, f"A key with the role {role} may not {method} {path}.", kind=PERMISSION, code="role_not_allowed"
    )


def key_not_found(name: str) -> ApiError:
    """No such key, or one of somebody else."""
    return ApiError(404, f"There is no key {name[:64]!r}.", code="key_not_found", param="key")


def rate_limited(what: str, per_minute: int, wait_s: float, headers: Mapping[str, str]) -> ApiError:
    """A key was faster than its tier allows; `what` is `requests` or `tokens`, OpenAI's error type."""
    seconds = max(1, math.ceil(round(wait_s, 3)))
    message = f"Rate limit reached: {per_minute} {what} per minute. Please try again in {seconds}s."
    return ApiError(429, message, kind=what, code="rate_limit_exceeded", retry_after_s=seconds, headers=headers)


def too_many_at_once(concurrent: int, headers: Mapping[str, str]) -> ApiError:
    """A key has as many requests under way and waiting as it may."""
    message = f"Too many requests at once: {concurrent} may run, and those that may wait do so already."
    return ApiError(429, message, kind="requests", code="concurrency_limit_exceeded", retry_after_s=1, headers=headers)


def budget_used_up(part: str, renewed_in_s: int) -> ApiError:
    """A key has used what it was given for a day or a month; trying again makes no sense before that."""
    what, _, period = part.partition("_per_")
    message = f"The budget of this key is used up: {what} per {period} (UTC). It is renewed in {renewed_in_s} s."
    return ApiError(
        429, message, kind="insufficient_quota", code="insufficient_quota", retry_after_s=renewed_in_s,
        headers={"x-should-retry": "false"},
    )  # fmt: skip


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
    kind = RATE_LIMIT if status == 429 else SERVER_ERROR if status == 501 else INVALID_REQUEST
    return ApiError(status, message, kind=kind)
