"""Failures as clients of the OpenAI API expect them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from roost.engines.base import Skill
from roost.gateway.paths import RESPONSES_PATH, is_anthropic

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
RATE_LIMIT = "rate_limit_error"
PERMISSION = "permission_error"


# https://docs.anthropic.com/en/api/errors
ANTHROPIC_TYPES = {
    400: INVALID_REQUEST,
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: INVALID_REQUEST,
    408: INVALID_REQUEST,
    413: "request_too_large",
    429: "rate_limit_error",
    501: INVALID_REQUEST,
    503: "overloaded_error",
}


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
        numbers: Mapping[str, int | None] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        self.numbers = dict(numbers or {})

    def body(self, path: str = "") -> bytes:
        """Return the JSON document `{"error": {...}}` as the clients of that path expect it."""
        numbers = {name: number for name, number in self.numbers.items() if number is not None}
        if is_anthropic(path):
            fields = {"type": ANTHROPIC_TYPES.get(self.status, "api_error"), "message": self.message, **numbers}
            return json.dumps({"type": "error", "error": fields}).encode()
        said = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": {**said, **numbers}}).encode()

    def event(self, path: str) -> bytes:
        """Return the error as the last event of a stream that has begun, in the words of the path's protocol.

        Anthropic's and that of OpenAI's responses have an event for it. Clients of the latter look for `error` in any
        event, too, and a code says to all of them what it is.
        """
        if not is_anthropic(path) and path != RESPONSES_PATH:
            return b"data: " + self.body(path) + b"\n\n"
        document = json.loads(self.body(path))
        if is_anthropic(path):
            document["error"]["code"] = self.code
        else:
            document |= {"type": "error", "code": self.code, "message": self.message, "param": self.param}
        return b"event: error\ndata: " + json.dumps(document).encode() + b"\n\n"

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return the error as an HTTP response."""
        extra = {**(headers or {}), **self.headers}
        if self.retry_after_s is not None:
            extra["retry-after"] = str(self.retry_after_s)
        if self.status == 401:
            extra["www-authenticate"] = "Bearer"
        return ErrorResponse(self, extra)


class ErrorResponse(Response):
    """An error whose shape is that of the protocol which the request's path belongs to."""

    def __init__(self, error: ApiError, headers: Mapping[str, str]) -> None:
        super().__init__(error.body(), error.status, headers, media_type="application/json")
        self._error = error
        self._extra = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if is_anthropic(scope["path"]):
            body = self._error.body(scope["path"])
            await Response(body, self.status_code, self._extra, media_type="application/json")(scope, receive, send)
            return
        await super().__call__(scope, receive, send)


def unauthorized() -> ApiError:
    """No key, or a wrong one."""
    where = "`roost keys add NAME` on a host of the fleet makes one; it is sent as `Authorization: Bearer KEY`."
    return ApiError(401, f"Incorrect API key provided. {where}", code="invalid_api_key")


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


def service_stopping() -> ApiError:
    """The service stops, and the answer has not begun: another replica, or this one in a moment, can give it."""
    message = "The service is stopping. Send the request again."
    return ApiError(503, message, kind=SERVER_ERROR, code="service_stopping", retry_after_s=1)


def stream_stopped() -> ApiError:
    """The service stops in the middle of a stream."""
    message = "The service is stopping: this answer is not complete."
    return ApiError(503, message, kind=SERVER_ERROR, code="stream_interrupted")


def stream_interrupted(reason: str, why: str) -> ApiError:
    """The model server broke off in the middle of an answer, and no other one can go on with it."""
    message = f"The answer was interrupted: the model server failed ({reason}), and it cannot go on elsewhere: {why}"
    return ApiError(502, message.rstrip(".") + ".", kind=SERVER_ERROR, code="stream_interrupted")


def overloaded(waiting: int, retry_after_s: int) -> ApiError:
    """Every slot was taken for as long as the request could wait."""
    message = f"The model is overloaded: no slot came free in time, and {waiting} requests wait."
    return ApiError(503, message, kind=SERVER_ERROR, code="overloaded", retry_after_s=retry_after_s)


def queue_full(waiting: int, retry_after_s: int) -> ApiError:
    """So many wait for a slot that no more may, and most of them belong to this key."""
    message = f"Too many requests wait for a slot ({waiting}), most of them of this key."
    return ApiError(429, message, kind="requests", code="queue_full", retry_after_s=retry_after_s)


def too_many_retries(reason: str) -> ApiError:
    """A request failed, and so many others do that trying again would only add to it."""
    message = f"The model server failed: {reason}. Too many requests fail just now to try another one."
    return ApiError(503, message, kind=SERVER_ERROR, code="retry_budget_exhausted", retry_after_s=5)


def not_offered(what: str) -> ApiError:
    """The model server has no such route."""
    return ApiError(501, f"Not offered here: {what}.", kind=SERVER_ERROR, code="not_offered")


SKILLS = {
    Skill.GENERATE: "generate text",
    Skill.EMBED: "make embeddings",
    Skill.RERANK: "rerank",
    Skill.TOKENIZE: "tokenise",
}


def not_able(name: str, skill: Skill) -> ApiError:
    """The model was not made for that, or its server was not started for it."""
    message = f"The model {name!r} does not {SKILLS[skill]}; GET /v1/models says which ones do."
    return ApiError(400, message, code="model_not_able", param="model")


def too_long(prompt: int, answer: int | None, context: int, prompt_field: str, limit_field: str) -> ApiError:
    """A request needs more tokens than the context has: OpenAI's words, with the numbers as fields too."""
    room = context - prompt
    wanted = "" if answer is None else f" and {answer} in the answer ({limit_field})"
    advice = f"send {limit_field} up to {room}" if room > 0 else f"shorten {prompt_field}"
    message = (
        f"This model's maximum context length is {context} tokens. However, the request has {prompt} tokens in "
        f"{prompt_field}{wanted}. Please {advice}, or use a model with a longer context."
    )
    return ApiError(
        400,
        message,
        code="context_length_exceeded",
        param=limit_field if room > 0 else prompt_field,
        numbers={"context": context, "prompt_tokens": prompt, "answer_tokens": answer},
    )


def grammar_not_allowed() -> ApiError:
    """Say that only an administrator may send a grammar: one of 181 bytes kept llama-server busy without an end."""
    message = (
        "grammar: only an administrator's key may send one, for some never end; response_format takes a JSON schema."
    )
    return ApiError(400, message, code="unsupported_parameter", param="grammar")
