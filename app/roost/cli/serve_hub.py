"""`roost serve hub`: what is for people, apart from the gateway. It speaks to gateways by their public API only."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from roost import __version__
from roost.agent.tools.searxng import given
from roost.cli.serve_agent import Turns, agent_hub
from roost.cli.serve_handover import open_sockets
from roost.cli.serve_listen import listeners
from roost.cli.serve_until import serve_until_stopped
from roost.gateway.settings import Duration, Wait, read_settings
from roost.gateway.telemetry import Redactor
from roost.ops.errors import RoostError
from roost.web.forward import Forward, gateway_session
from roost.web.front import Front
from roost.web.sessions import Sessions

LIVE = "/healthz"


class HubSettings(BaseSettings):
    """Environment variables `ROOST_<NAME>`; times end in `_s` and are seconds."""

    model_config = SettingsConfigDict(env_prefix="ROOST_", env_ignore_empty=True, extra="ignore", frozen=True)

    bind: str = "127.0.0.1"
    port: int = Field(default=8361, ge=0, le=65535)
    listen: str = ""  # ADDR:PORT beyond loopback; needs tls_cert and tls_key
    tls_cert: Path | None = None
    tls_key: Path | None = None
    listen_keeper: Path | None = None  # socket of who keeps these while it is replaced; without it nobody is asked

    gateways: str = "http://127.0.0.1:8360"  # base URLs, separated by commas; the first that answers is asked
    gateway_ca: Path | None = None  # the authority of their certificates, where it is not one that the system knows

    searxng_url: str = Field(default="", pattern=r"^(https?://[^\s/@]+(/[^\s@]*)?)?$")  # for the agent's searches
    state_dir: Path | None = None  # where logins are kept; without it they end with the process
    web_session_s: Duration = 43200.0  # a login on the page that nobody uses ends after so long

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_body_bytes: int = Field(default=9 << 20, gt=0)
    header_timeout_s: Duration = 10.0  # a connection without a complete request header is closed
    drain_s: Wait = 15.0  # for streams that still run when the service is stopped

    @field_validator("gateways")
    @classmethod
    def _gateways_are_addresses(cls, text: str) -> str:
        for url in gateway_urls(text):
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError(f"{url!r} is no base URL of a gateway")
            if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
                raise ValueError(f"{url!r} is not on this machine: beyond loopback only https is spoken")
        if not gateway_urls(text):
            raise ValueError("name a gateway")
        return text


def gateway_urls(text: str) -> list[str]:
    """Return the base URLs of a list with commas."""
    return [part.strip().rstrip("/") for part in text.split(",") if part.strip()]


def load_hub_settings() -> HubSettings:
    """Read the environment.

    Raises:
        RoostError: a variable has a value that it may not have.
    """
    return read_settings(HubSettings)


def hub_app(forward: ASGIApp, sessions: Sessions) -> ASGIApp:
    """Return the hub's application: the page and its login, its own health, and everything else from a gateway."""

    async def hub(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == LIVE:
            await JSONResponse({"status": "ok", "version": __version__})(scope, receive, send)
        else:
            await forward(scope, receive, send)

    return Front(hub, sessions)


async def run_hub(settings: HubSettings, redactor: Redactor | None = None) -> None:
    """Serve until a signal.

    Raises:
        RoostError: an address cannot be listened on, or a certificate cannot be used.
    """
    keeper = settings.listen_keeper
    places = open_sockets(listeners(settings), keeper)

    try:
        async with gateway_session(str(settings.gateway_ca) if settings.gateway_ca else None) as session:
            urls = gateway_urls(settings.gateways)
            forward = Forward(session, urls, settings.max_body_bytes)
            turns = Turns()  # so that they, too, have the next gateway when one does not answer
            search = given(settings.searxng_url)
            agent = agent_hub(forward, settings.state_dir, session, turns.url, redactor, search)

            @asynccontextmanager
            async def beside(_stop: Callable[[], None]) -> AsyncIterator[None]:
                async with turns.served(forward, settings):
                    try:
                        yield
                    finally:
                        if agent:
                            await agent.close()

            sessions = Sessions(settings.state_dir, settings.web_session_s)
            app = hub_app(agent or forward, sessions)
            let_go = partial(agent.let_go, settings.drain_s) if agent else lambda: None
            await serve_until_stopped(app, places, settings, beside, let_go, sockets=agent is not None, keeper=keeper)
    except (OSError, ssl.SSLError) as error:
        raise RoostError(
            f"The authority of the gateways, {settings.gateway_ca}, cannot be used: {error}.",
            fix="Name the file that `roost ca export` wrote in ROOST_GATEWAY_CA.",
        ) from None
