"""Where the services find SearXNG: at the address in their settings, else as a service that Nomad knows."""

from __future__ import annotations

from urllib.parse import quote

import aiohttp
import structlog
from pydantic import BaseModel, Field, TypeAdapter

from roost.agent.tools.errors import UnavailableError
from roost.agent.tools.searxng import Where, given
from roost.fleet.jobs import SEARCH_JOB
from roost.gateway.discovery import REGISTRATIONS, origin
from roost.gateway.settings import Settings
from roost.gateway.task_api import TaskApi

log = structlog.get_logger(__name__)


class _Job(BaseModel):
    id: str = Field(validation_alias="ID")
    stopped: bool = Field(default=False, validation_alias="Stop")


JOBS = TypeAdapter(list[_Job])


def searching(settings: Settings) -> Where:
    """Return what says the address of SearXNG; Nomad is asked each time."""
    if settings.searxng_url or not settings.nomad_socket:
        return given(settings.searxng_url)
    api = TaskApi(settings.nomad_socket, settings.nomad_token.get_secret_value(), settings.nomad_namespace)
    path = f"/v1/service/{quote(settings.search_service, safe='')}"

    async def where() -> str:
        try:
            async with api.session() as session:
                if found := await api.ask(session, path, REGISTRATIONS):
                    return origin(found[0])
                jobs = await api.ask(session, "/v1/jobs", JOBS, {"prefix": SEARCH_JOB})
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            log.warning("nomad_unreachable", path=path, error=reason)
            raise UnavailableError(f"Nomad does not say where the search is: {reason}") from None
        if any(job.id == SEARCH_JOB and not job.stopped for job in jobs):
            raise UnavailableError("The search is enabled and does not run now")
        return ""

    return where
