"""`/v1/key` and `/v1/usage`: what a key may do, and what was used."""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from roost.gateway.access import owner_or_admin
from roost.gateway.account.ledger import DIMENSIONS, Question
from roost.gateway.account.meter import Meter
from roost.gateway.account.usage import MS_PER_S, Sums
from roost.gateway.auth import Keys, caller_of
from roost.gateway.errors import SERVER_ERROR, ApiError, key_not_found
from roost.ops.api_keys import ApiKey, Role

log = structlog.get_logger(__name__)

DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
J_PER_WH = 3600.0


def add_key_routes(app: FastAPI, keys: Keys, meter: Meter, cost_mode: str = "") -> None:
    """Add the routes. `cost_mode` is the configured one of conversations, which an administrator may override."""

    @app.get("/v1/key")
    async def about(request: Request, name: str = "") -> JSONResponse:
        """Describe the key that asks, or for an administrator the one named: role, limits, what is left, budget."""
        found = keys.named(name) if name else caller_of(request.scope)
        if found is None or not owner_or_admin(request, found.name):
            raise key_not_found(name)
        modes = {"cost_mode": keys.cost_mode(), "cost_mode_default": cost_mode}
        return JSONResponse({**key_document(found, meter), **modes})

    @app.get("/v1/limits")
    async def limits() -> JSONResponse:
        """List the tiers' numbers as they are now, and what each key has left."""
        changed = keys.overridden()
        tiers = [
            {"tier": tier.value, **numbers.model_dump(), "overridden": tier in changed}
            for tier, numbers in keys.tiers().items()
        ]
        known = [found for name in keys.names() if (found := keys.named(name))]
        return JSONResponse({"tiers": tiers, "keys": [key_document(key, meter) for key in known]})

    @app.get("/v1/usage")
    async def usage(
        request: Request, by: str = "key", since: str = "", until: str = "", key: str = "", model: str = ""
    ) -> JSONResponse:
        """Add up usage by `key`, `model`, `day`, separated by commas: one's own; an administrator sees all."""
        asking = caller_of(request.scope)
        if key and not owner_or_admin(request, key):
            raise key_not_found(key)
        question = Question(
            by=_dimensions(by),
            since=_day("since", since),
            until=_day("until", until),
            key=key if asking.role is Role.ADMIN else asking.name,
            model=model,
        )
        try:
            rows = await meter.accountant.ask(question)
        except sqlite3.Error:
            log.exception("usage_not_read")
            raise ApiError(503, "Usage cannot be read now.", kind=SERVER_ERROR, retry_after_s=5) from None
        data = [{**names, **sums_document(sums)} for names, sums in rows]
        return JSONResponse({"object": "list", "data": data, "currency": meter.currency})


def key_document(key: ApiKey, meter: Meter) -> dict[str, object]:
    """Return what is shown of a key; never its digest."""
    spent = meter.accountant.spent(key.name)
    return {
        "object": "key",
        "name": key.name,
        "role": key.role.value,
        "state": key.state(datetime.now(UTC)),
        "models": list(key.models),
        "owner": key.owner,
        "expires": key.expires.isoformat() if key.expires else None,
        "tier": key.tier.value,
        **meter.limiter.standing(key),
        "budget": key.budget.model_dump(exclude_defaults=True),
        "used": {
            "tokens_per_day": spent.tokens_day,
            "tokens_per_month": spent.tokens_month,
            "cost_per_day": round(spent.cost_day, 6),
            "cost_per_month": round(spent.cost_month, 6),
        },
        "currency": meter.currency,
    }


def sums_document(sums: Sums) -> dict[str, object]:
    """Return sums as the API shows them: seconds, watt hours, the site's currency."""
    return {
        "requests": sums.requests,
        "failed": sums.failed,
        "estimated": sums.estimated,
        "prompt_tokens": sums.prompt,
        "cached_tokens": sums.cached,
        "completion_tokens": sums.completion,
        "engine_seconds": round(sums.engine_ms / MS_PER_S, 3),
        "energy_wh": round(sums.energy_j / J_PER_WH, 6),
        "cost": round(sums.cost, 6),
    }


def _dimensions(text: str) -> tuple[str, ...]:
    names = tuple(part for part in text.split(",") if part)
    if unknown := [name for name in names if name not in DIMENSIONS]:
        raise ApiError(400, f"by: {unknown[0][:50]!r} is none of {', '.join(DIMENSIONS)}.", param="by")
    return names


def _day(name: str, text: str) -> str:
    if text and not DAY.fullmatch(text):
        raise ApiError(400, f"{name}: write a day as YYYY-MM-DD.", param=name)
    return text
