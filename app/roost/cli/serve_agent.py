"""The agent's part of a hub: assembled where there is a folder for its sessions, and only then imported."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from starlette.types import ASGIApp

from roost.cli.serve_listen import Listener
from roost.gateway.telemetry import Redactor

if TYPE_CHECKING:
    from roost.agent.hub import AgentHub


def agent_hub(
    api: ASGIApp, folder: Path | None, http: aiohttp.ClientSession, base_url: str, redactor: Redactor | None
) -> AgentHub | None:
    """Return the agent's routes before `api`, whose models are asked for at `base_url`; None without a folder."""
    if folder is None:
        return None
    # imported here: a gateway alone has no room for it
    from roost.agent.hub import AgentHub, agents_of
    from roost.agent.measures import Measures

    measures = Measures()
    agents = agents_of(folder, http, base_url, redactor=redactor, count=measures.count)
    return AgentHub(api, agents, measures)


def own_url(places: Sequence[tuple[Listener, socket.socket]]) -> str:
    """Return the base URL of this process on loopback."""
    here = next(bound for listener, bound in places if not listener.tls)
    host, port = here.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
