"""Keeps the listening sockets of a service while nobody serves them: connections wait in the kernel, none is refused.

A service hands a duplicate of its socket over (`keep`) and stays connected as its sign of life; its successor gets the
socket back (`take`). When the service has ended and no successor said `keep` within `HOLD_S`, the socket is closed, and
clients are refused at once again. Why, and what else was looked at: docs/decisions/0033-who-keeps-the-port.md

Stands alone, with the standard library only: machines run a copy of it, `python3 -I -S COPY FOLDER`. It answers its own
user only, at FOLDER/keeper.sock. Each message is one JSON object; a socket goes with it (SCM_RIGHTS).
"""

from __future__ import annotations

import ipaddress
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

VERSION = 1  # of what is said; another one is refused, and the service then listens by itself
FOLDER = "listen"  # below the state of whom it keeps sockets for
NAME = "keeper.sock"
HOLD_S = 30.0  # from the end of a service to that of its socket: longer than Nomad takes to start the next
MOST_BYTES = 512  # of a message
MOST_SOCKETS = 8
MOST_CONNECTIONS = 16
PEER = struct.Struct("3i")  # struct ucred: process, user, group

Said = Mapping[str, Any]
Log = Callable[[str], None]


class Place(NamedTuple):
    """Where a socket listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RefusedError(Exception):
    """What came over the connection is not to be used; the text says why."""


def place_of(said: Said) -> Place:
    """Return the place that a message names.

    Raises:
        RefusedError: it names none.
    """
    host, port = said.get("host"), said.get("port")
    if not isinstance(host, str) or type(port) is not int or not 0 < port < 1 << 16:
        raise RefusedError("no address and port")
    try:
        return Place(str(ipaddress.ip_address(host)), port)
    except ValueError:
        raise RefusedError(f"{host!r} is no address") from None


def check_listens(sock: socket.socket, place: Place) -> None:
    """See that a socket that came from another process is what it is said to be.

    Raises:
        RefusedError: it does not listen for TCP at `place`.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        protocol = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
        is_tcp = (sock.family, sock.type, protocol) == (family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if not is_tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise RefusedError("it is no socket that listens for TCP")
        found = Place(*sock.getsockname()[:2])
    except OSError as error:
        raise RefusedError(f"it cannot be looked at: {error.strerror}") from None
    if found != place:
        raise RefusedError(f"it listens at {found}, not at {place}")


def peer_user(connection: socket.socket) -> int:
    """Return the number of the user at the other end of a Unix socket, as the kernel knows it."""
    return int(PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))[1])


def send(connection: socket.socket, said: Said, sock: socket.socket | None = None) -> None:
    """Send one message, and a socket with it.

    Raises:
        OSError: it does not go out.
    """
    data = json.dumps({"version": VERSION, **said}).encode()
    socket.send_fds(connection, [data], [sock.fileno()] if sock else [])


def receive(connection: socket.socket) -> tuple[Said, socket.socket | None]:
    """Return one message, empty at the connection's end, and the socket that came with it.

    Raises:
        RefusedError: it is no message of ours.
        OSError: nothing can be read; BlockingIOError where nothing has come.
    """
    data, numbers, flags, _ = socket.recv_fds(connection, MOST_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise RefusedError("a message that is too long")
        if not data:
            return {}, None
        said = json.loads(data)
        if not isinstance(said, dict) or said.get("version") != VERSION:
            raise RefusedError(f"not version {VERSION} of what is said here")
        return said, _shared(numbers.pop()) if numbers else None
    except (ValueError, RecursionError):
        raise RefusedError("no JSON") from None
    finally:
        for number in numbers:
            os.close(number)


def _shared(number: int) -> socket.socket:
    """Return the socket of a descriptor that came from another process.

    Whether it blocks belongs to all who have it: Python's own default would have the service wait in `accept`.
    """
    sock = socket.socket(fileno=number)
    sock.setblocking(False)
    return sock


class _Held:
    """A socket that is kept. `owner` is who serves it, None while nobody does; then `until` says how long it stays."""

    def __init__(self, sock: socket.socket, owner: int) -> None:
        self.sock = sock
        self.owner: int | None = owner
        self.until = 0.0


class Shelf:
    """What is kept, for whom, and until when. `clock` is in seconds; owners are numbers that nobody else has."""

    def __init__(self, clock: Callable[[], float], log: Log, hold_s: float = HOLD_S) -> None:
        self._clock, self._log, self._hold_s = clock, log, hold_s
        self._held: dict[Place, _Held] = {}

    def keep(self, owner: int, place: Place, sock: socket.socket) -> None:
        """Keep a duplicate of a socket as long as `owner` is there, and for a while after it.

        Raises:
            RefusedError: it does not listen there, or there are too many.
        """
        check_listens(sock, place)
        before = self._held.get(place)
        if before:
            before.sock.close()
        elif len(self._held) >= MOST_SOCKETS:
            raise RefusedError(f"{MOST_SOCKETS} sockets are kept already")
        self._held[place] = _Held(sock.dup(), owner)

    def take(self, place: Place) -> socket.socket | None:
        """Return the socket that is kept for a place, which stays kept as before; None if there is none.

        What listens at that port for nobody any more goes then: it would be in the way, at this address or at all.
        """
        held = self._held.get(place)
        if held:
            try:
                check_listens(held.sock, place)
            except RefusedError as why:  # somebody shut it down
                self._drop(place, f"of no use any more, {why}")
                held = None
        if held:
            return held.sock
        for other in [other for other, kept in self._held.items() if other.port == place.port and kept.owner is None]:
            self._drop(other, f"its port is wanted at {place}")
        return None

    def left(self, owner: int) -> None:
        """Note that a service has ended."""
        for place, held in self._held.items():
            if held.owner == owner:
                held.owner, held.until = None, self._clock() + self._hold_s
                self._log(f"{place}: its service has ended, connections wait up to {self._hold_s:.0f} s for the next")

    def expire(self) -> float | None:
        """Close what nobody came for in time; return the seconds until there may be more of it, None for never."""
        now = self._clock()
        waiting = {place: held.until - now for place, held in self._held.items() if held.owner is None}
        for place, left_s in waiting.items():
            if left_s <= 0:
                self._drop(place, f"nobody came for it within {self._hold_s:.0f} s, closed")
        return min((left_s for left_s in waiting.values() if left_s > 0), default=None)

    def _drop(self, place: Place, why: str) -> None:
        self._held.pop(place).sock.close()
        self._log(f"{place}: {why}")


class Keeper:
    """Answers at a Unix socket. It never waits for one of those that it answers."""

    def __init__(self, listener: socket.socket, shelf: Shelf, log: Log) -> None:
        self._listener, self._shelf, self._log = listener, shelf, log
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._owners: dict[socket.socket, int] = {}
        self._number = 0

    def run(self) -> None:
        """Answer for ever."""
        while True:
            self.step(self._shelf.expire())

    def step(self, timeout_s: float | None) -> None:
        """Wait up to so many seconds, None for ever, and do what is to be done."""
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.fileobj, socket.socket):
                self._answer(key.fileobj)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        connection.setblocking(False)
        user = peer_user(connection)
        if user != os.geteuid() or len(self._owners) >= MOST_CONNECTIONS:
            self._log(f"user {user} is not answered" if user != os.geteuid() else "too many connections")
            connection.close()
            return
        self._number += 1
        self._owners[connection] = self._number
        self._selector.register(connection, selectors.EVENT_READ)

    def _answer(self, connection: socket.socket) -> None:
        try:
            said, sock = receive(connection)
            if not said:
                self._close(connection)
                return
            with sock or nullcontext():
                self._obey(connection, said, sock)
        except BlockingIOError:
            return
        except RefusedError as why:
            self._log(f"refused: {why}")
            with suppress(OSError):
                send(connection, {"error": str(why)})
            self._close(connection)
        except OSError:  # whoever asked is gone, or does not read
            self._close(connection)

    def _obey(self, connection: socket.socket, said: Said, sock: socket.socket | None) -> None:
        verb, place = said.get("verb"), place_of(said)
        if verb == "keep" and sock:
            self._shelf.keep(self._owners[connection], place, sock)
            self._log(f"{place}: kept")
            send(connection, {"kept": True})
        elif verb == "take" and not sock:
            found = self._shelf.take(place)
            self._log(f"{place}: {'handed to the next service' if found else 'asked for, not kept'}")
            send(connection, {"found": bool(found)}, found)
        else:
            raise RefusedError("neither `keep` with a socket nor `take`")

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._shelf.left(self._owners.pop(connection))
        connection.close()


def open_door(folder: Path) -> socket.socket:
    """Listen at the folder's Unix socket, in place of one that was left there.

    Raises:
        OSError: that cannot be, or another keeper answers there.
    """
    path = folder / NAME
    with suppress(FileNotFoundError, ConnectionRefusedError):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.connect(str(path))
        raise FileExistsError(f"another keeper answers at {path}")
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(str(path))
    path.chmod(0o600)
    door.listen(MOST_CONNECTIONS)
    door.setblocking(False)
    return door


def answers(door: Path, timeout_s: float) -> bool:
    """Say whether a keeper answers at a Unix socket: its own user with words, others by hanging up."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(door))
            with suppress(BrokenPipeError, ConnectionResetError):
                send(connection, {"verb": "answer"})
                connection.recv(MOST_BYTES)
    except OSError:
        return False
    return True


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _end(*_: object) -> None:
    sys.exit(0)


def main(words: list[str]) -> int:
    """Keep sockets until a signal; return the exit code."""
    if len(words) != 1:
        _say(f"Usage: {Path(sys.argv[0]).name} FOLDER")
        return 2
    folder = Path(words[0])
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        door = open_door(folder)
    except OSError as error:
        _say(f"Cannot listen at {folder / NAME}: {error}.\nFix: run ./bootstrap.sh again, it makes the folder.")
        return 1
    try:
        Keeper(door, Shelf(time.monotonic, _say), _say).run()
    finally:
        (folder / NAME).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
