"""Holds a request against a model server's context before that gets it: by its own tokeniser, and only if in doubt."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic_core import from_json
from starlette.types import Scope

from roost.engines.base import Engine
from roost.gateway.connection.fields import fields_of
from roost.gateway.errors import ApiError, too_long
from roost.gateway.request.context_fit import (
    Size,
    cut_points,
    first_that_fits,
    prompt_budget,
    surely_fits,
    without_oldest,
)
from roost.gateway.request.kinds import Kind

CONTEXT_HEADER = "x-roost-context"
POLICIES = frozenset({"", "refuse", "cut"})


@dataclass(frozen=True)
class Fitted:
    """The body to send on, and what was cut, for the header that tells it."""

    body: bytes
    cut: str = ""


def wants_cut(scope: Scope) -> bool:
    """Say whether the client asked for what does not fit to be cut, by `X-Roost-Context: cut`.

    Raises:
        ApiError: the header says something else than `cut` or `refuse`.
    """
    policy = fields_of(scope).get(CONTEXT_HEADER, "").strip().lower()
    if policy not in POLICIES:
        raise ApiError(400, f"The header {CONTEXT_HEADER} is {policy[:40]!r}; it can be refuse or cut.")
    return policy == "cut"


async def fitted(
    engine: Engine, kind: Kind, body: bytes, answer: int | None, context: int | None, *, cut: bool
) -> Fitted:
    """Return what to send to a model server with `context` tokens for one request; `answer` is the longest answer.

    A server that cannot count, or does not understand the request, gets it as it is, and judges by itself.

    Raises:
        ApiError: it does not fit, and cutting is not wanted or would not help.
        aiohttp.ClientError, OSError, TimeoutError: the server did not answer.
    """
    if not kind.counted or not context or surely_fits(body, answer, context):
        return Fitted(body)
    prompt = await engine.count(kind.path, body)
    if prompt is None:
        return Fitted(body)
    size = Size(prompt, answer, context)
    if size.fits:
        return Fitted(body)
    if not cut:
        raise _refusal(size, kind)
    return await _cut(engine, kind, body, size)


async def _cut(engine: Engine, kind: Kind, body: bytes, size: Size) -> Fitted:
    request: dict[str, object] = from_json(body)
    told: list[str] = []
    budget = prompt_budget(size.answer, size.context)
    messages = request.get(kind.prompt_field)
    if size.prompt > budget and kind.prompt_field == "messages" and isinstance(messages, list):

        async def fits(begin: int) -> bool:
            shorter = json.dumps(request | {"messages": without_oldest(messages, begin)}).encode()
            count = await engine.count(kind.path, shorter)
            counts[begin] = count if count is not None else size.context
            return counts[begin] <= budget

        counts: dict[int, int] = {}
        begin = await first_that_fits(cut_points(messages), fits)
        if begin is not None:
            kept = without_oldest(messages, begin)
            told.append(f"messages={len(messages) - len(kept)}")
            request["messages"] = kept
            size = Size(counts[begin], size.answer, size.context)
    if size.room < 1:
        raise _refusal(size, kind)
    if size.answer is not None and not size.fits:
        told.append(f"{kind.limit_field}={size.answer}->{size.room}")
        for name in ("max_completion_tokens", kind.limit_field):
            if name == kind.limit_field or name in request:
                request[name] = size.room
    try:
        return Fitted(json.dumps(request, allow_nan=False).encode(), ", ".join(told))
    except ValueError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.") from None


def _refusal(size: Size, kind: Kind) -> ApiError:
    return too_long(size.prompt, size.answer, size.context, kind.prompt_field, kind.limit_field)
