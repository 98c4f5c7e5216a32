"""Where the other gateways are: given, or from Nomad's service catalogue."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, Field, TypeAdapter

from roost.gateway.task_api import TaskApi


class _Registration(BaseModel):
    address: str = Field(validation_alias="Address")
    port: int = Field(validation_alias="Port")


REGISTRATIONS = TypeAdapter(list[_Registration])


def parse_peers(text: str) -> tuple[str, ...]:
    """Read base URLs, separated by commas.

    Raises:
        ValueError: one is none, or lies beyond loopback without TLS.
    """
    urls = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path:
            raise ValueError(f"{url!r} is no base URL of a gateway")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError(f"{url!r} is not on this machine: beyond loopback only https is spoken")
    return urls


def base_url(address: str, port: int) -> str:
    """Return where a registered gateway is asked: always with TLS."""
    host = f"[{address}]" if ":" in address else address
    return f"https://{host}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class PeerWatcher:
    """Follows the registrations of one service; `on_peers` gets the complete list of base URLs after each change."""

    def __init__(self, api: TaskApi, service: str, on_peers: Callable[[Collection[str]], None]) -> None:
        self._api = api
        self._service = service
        self._on_peers = on_peers

    async def run(self) -> None:
        """Watch until cancelled; while Nomad does not answer, what was known stays."""

        def take(found: list[_Registration]) -> None:
            self._on_peers({base_url(each.address, each.port) for each in found})

        async with self._api.session() as session:
            await self._api.follow(session, f"/v1/service/{quote(self._service, safe='')}", REGISTRATIONS, take)
