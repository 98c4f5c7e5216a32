"""WebSocket connections as uvicorn serves them with wsproto: imported with the first one, gone when nobody answers."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
    from uvicorn.server import ServerState

PING_S = 20.0
PONG_S = 20.0
"""Who answers no ping for so long is gone, and who reads nothing: its answer lies behind what it would have to read."""
MOST_MESSAGE_BYTES = 1 << 20


def websocket_protocol() -> type[asyncio.Protocol]:
    """Return the protocol for uvicorn's setting `ws`: it costs no memory until somebody connects."""

    def made(config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]) -> asyncio.Protocol:
        return _protocol()(config, server_state, app_state)

    return cast("type[asyncio.Protocol]", made)  # uvicorn only calls it


@cache
def _protocol() -> type[WSProtocol]:
    from uvicorn.protocols.websockets.wsproto_impl import WSProtocol as Base

    class Protocol(Base):
        """One connection."""

        def shutdown(self) -> None:
            """Leave the end to the application: it says so, and is cut off with all others after `drain_s`."""

        def keepalive_timeout(self) -> None:
            """Let go of who is not there: closing in order would wait for it to read what is under way."""
            super().keepalive_timeout()
            self.transport.abort()

    return Protocol
