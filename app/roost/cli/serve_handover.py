"""What a service says to the keeper of its listening sockets (`ops/listen_keeper.py`).

Without a keeper, or with one of no use, a service listens by itself and refuses connections while it is replaced. Jobs
of an installation name theirs (ROOST_LISTEN_KEEPER); who runs a service otherwise has none, and none is missed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from roost.cli.serve_listen import Listener, open_socket
from roost.ops.errors import RoostError
from roost.ops.listen_keeper import Place, RefusedError, Said, check_listens, peer_user, receive, send
from roost.ops.service_names import LISTEN

log = structlog.get_logger(__name__)
ANSWER_S = 1.0  # the keeper waits for nobody: one that takes longer is stuck
PATIENCE_S = 2.0  # for a keeper that ends with the port in its hands
PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True)
class Opened:
    """A socket that listens. `taken_over`: connections may wait in it already."""

    listener: Listener
    sock: socket.socket
    taken_over: bool = False


def open_sockets(listeners: Sequence[Listener], keeper: Path | None) -> list[Opened]:
    """Have a socket for each listener: the one that the keeper has, else a new one.

    Raises:
        RoostError: an address cannot be listened on.
    """
    return [_open(listener, keeper) for listener in listeners]


def _open(listener: Listener, keeper: Path | None) -> Opened:
    if keeper is None or not listener.port:
        return Opened(listener, open_socket(listener))
    until = time.monotonic() + PATIENCE_S
    while True:
        kept, problem = _kept(keeper, Place(listener.host, listener.port))
        if kept:
            return Opened(listener, kept, taken_over=True)
        try:
            return Opened(listener, open_socket(listener))
        except RoostError as error:
            if not problem:
                raise
            if time.monotonic() > until:
                raise _with_keeper(error, problem) from None
            time.sleep(PAUSE_S)  # it may be just ending, and let go of the port


def _with_keeper(error: RoostError, problem: str) -> RoostError:
    return RoostError(
        f"{error} What may hold it for this service gave no answer of use: {problem}.",
        fix=f"Stop what uses the port, or choose another one; if it is {LISTEN}, restart that.",
    )


def _kept(keeper: Path, place: Place) -> tuple[socket.socket | None, str]:
    """Return the socket that is kept for a place, if there is one, and what is wrong with the keeper, if there is."""
    try:
        return _take(keeper, place), ""
    except FileNotFoundError:
        return None, f"there is no {keeper}"
    except (OSError, RefusedError) as error:
        return None, str(error)


def _connect(keeper: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(ANSWER_S)
        connection.connect(str(keeper))
        _check_user(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_user(connection: socket.socket) -> None:
    user = peer_user(connection)
    if user != os.geteuid():
        raise RefusedError(f"user {user} answers there")


def _ask(connection: socket.socket, said: Said, sock: socket.socket | None = None) -> socket.socket | None:
    send(connection, said, sock)
    answer, found = receive(connection)
    if "error" in answer or not answer:
        raise RefusedError(str(answer.get("error", "it closed the connection")))
    return found


def _take(keeper: Path, place: Place) -> socket.socket | None:
    with _connect(keeper) as connection:
        sock = _ask(connection, {"verb": "take", "host": place.host, "port": place.port})
    if sock:
        try:
            check_listens(sock, place)
        except RefusedError:
            sock.close()
            raise
    return sock


async def keep_with(keeper: Path | None, sockets: Sequence[socket.socket]) -> None:
    """Have the keeper keep these sockets as long as this runs, and stay connected to it.

    Where the keeper is not there, or ends, it is tried again until the sockets are closed; that is logged once.
    """
    pause_s, complained = PAUSE_S, ""
    while keeper and all(sock.fileno() >= 0 for sock in sockets):
        try:
            with await asyncio.to_thread(_hand_over, keeper, sockets) as connection:
                log.info("listeners_kept", keeper=str(keeper), sockets=len(sockets))
                pause_s, complained = PAUSE_S, ""
                connection.setblocking(False)
                await asyncio.get_running_loop().sock_recv(connection, 1)
        except (OSError, RefusedError) as error:
            if str(error) != complained:
                complained = str(error)
                log.warning("listeners_not_kept", keeper=str(keeper), error=complained)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _hand_over(keeper: Path, sockets: Sequence[socket.socket]) -> socket.socket:
    connection = _connect(keeper)
    try:
        for sock in sockets:
            host, port = sock.getsockname()[:2]
            _ask(connection, {"verb": "keep", "host": host, "port": port}, sock)
    except BaseException:
        connection.close()
        raise
    return connection
