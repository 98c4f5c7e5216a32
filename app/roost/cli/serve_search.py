"""Where the services find SearXNG: at the address in their settings, else as a service that Nomad knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import aiohttp
import structlog

from roost.gateway.discovery import REGISTRATIONS, origin
from roost.gateway.settings import Settings
from roost.gateway.task_api import TaskApi

log = structlog.get_logger(__name__)
Where = Callable[[], Awaitable[str]]


def given(url: str) -> Where:
    """Return what says this address."""

    async def where() -> str:
        return url

    return where


NOWHERE = given("")


def searching(settings: Settings) -> Where:
    """Return what says the address of SearXNG, or nothing where there is none; Nomad is asked each time."""
    if settings.searxng_url or not settings.nomad_socket:
        return given(settings.searxng_url)
    api = TaskApi(settings.nomad_socket, settings.nomad_token.get_secret_value(), settings.nomad_namespace)
    path = f"/v1/service/{quote(settings.search_service, safe='')}"

    async def where() -> str:
        try:
            async with api.session() as session:
                found = await api.ask(session, path, REGISTRATIONS)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            log.warning("nomad_unreachable", path=path, error=str(error) or type(error).__name__)
            return ""
        return origin(found[0]) if found else ""

    return where
