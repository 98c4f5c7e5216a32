"""From a member to the client that speaks to it: its kind of engine, its key, whom to trust."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit

import aiohttp

from roost.engines import clients
from roost.engines.base import Engine
from roost.engines.http_server import Pace
from roost.engines.wire import Wire
from roost.gateway.endpoints.endpoint import Member
from roost.ops.errors import RoostError


@lru_cache(maxsize=64)
def trust(ca: str) -> ssl.SSLContext | bool:
    """Return whose certificates are believed: the system's authorities and those in `ca` (PEM).

    Raises:
        RoostError: `ca` holds no certificate.
    """
    if not ca:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise RoostError(
            f"The certificates of the authority cannot be used: {error}.", fix="Give a PEM file of certificates."
        ) from None
    return context


class Connector:
    """Makes clients. `fleet_key` is the key of the fleet's own model servers."""

    def __init__(
        self, session: aiohttp.ClientSession, fleet_key: Callable[[], str], pace: Pace, wire: Wire | None = None
    ) -> None:
        self._session = session
        self._wire = wire
        self._fleet_key = fleet_key
        self._pace = pace

    def __call__(self, member: Member) -> Engine:
        """Return a client of a member. The fleet's key goes to no endpoint that was added by hand."""
        hand = member.hand
        if hand is None:
            key, session, pace = self._fleet_key, self._session, self._pace
            return clients.connect(
                member.engine, member.base_url, session, key, pace, keeps_slots=member.keeps_slots, wire=self._wire
            )
        return clients.connect(
            hand.engine,
            member.base_url,
            self._session,
            hand.key.get_secret_value,
            self._pace,
            tls=trust(hand.ca) if urlsplit(hand.url).scheme == "https" else True,
            allowed=hand.models,
            wire=self._wire,
        )

    async def detect(self, url: str, key: str, ca: str) -> str:
        """Return the kind of server at an address. Raises `clients.UnknownServerError`."""
        return await clients.detect(url, self._session, key, trust(ca))
