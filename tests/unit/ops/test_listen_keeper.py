"""Who keeps a service's listening sockets: what is kept, for how long, and from whom nothing is taken."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from roost.ops import listen_keeper
from roost.ops.listen_keeper import (
    HOLD_S,
    MOST_CONNECTIONS,
    MOST_SOCKETS,
    NAME,
    Keeper,
    Place,
    RefusedError,
    Said,
    Shelf,
    answers,
    check_listens,
    open_door,
    place_of,
    receive,
    send,
)
from tests.support.net import free_port
from tests.support.replaced import SOON_S, keeper_process

LOOPBACK = "127.0.0.1"


@dataclass
class World:
    """A keeper that does one thing after the other, with a clock that stands still."""

    folder: Path
    now: float = 1000.0
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shelf = Shelf(lambda: self.now, self.said.append)
        self.door = open_door(self.folder)
        self.keeper = Keeper(self.door, self.shelf, self.said.append)

    def connect(self) -> socket.socket:
        """Return a connection that was accepted, or refused."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(5)
        connection.connect(str(self.folder / NAME))
        self.keeper.step(5)
        return connection

    def tell(self, connection: socket.socket, said: Said, sock: socket.socket | None = None) -> tuple[Said, int]:
        """Send a message and return the answer, and the port at which the socket that came with it listens, or 0."""
        send(connection, said, sock)
        self.keeper.step(5)
        answer, came = receive(connection)
        if came is None:
            return answer, 0
        with came:
            assert came.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return answer, int(came.getsockname()[1])

    def keep(self, connection: socket.socket, sock: socket.socket) -> Said:
        """Have a socket kept."""
        host, port = sock.getsockname()[:2]
        return self.tell(connection, {"verb": "keep", "host": host, "port": port}, sock)[0]

    def take(self, port: int, host: str = LOOPBACK) -> int:
        """Ask for a socket as the next service does; return the port of what came, or 0."""
        with self.connect() as connection:
            found = self.tell(connection, {"verb": "take", "host": host, "port": port})[1]
        self.keeper.step(5)
        return found

    def ends(self, connection: socket.socket) -> None:
        """Have the service end that has this connection."""
        connection.close()
        self.keeper.step(5)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with made.door:
        yield made


@contextmanager
def listening(family: socket.AddressFamily = socket.AF_INET) -> Iterator[socket.socket]:
    """Have a socket that listens as a service's does; of IPv6 at `::`, for the loopback of a container has no `::1`."""
    with socket.create_server(("::" if family == socket.AF_INET6 else LOOPBACK, 0), family=family) as sock:
        sock.setblocking(False)
        yield sock


def descriptors() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def refused(port: int) -> bool:
    """Say whether a client is told that nobody listens."""
    with socket.socket() as client:
        return client.connect_ex((LOOPBACK, port)) != 0


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_next_service_has_the_socket_of_the_one_before(world: World, family: socket.AddressFamily) -> None:
    with listening(family) as sock, world.connect() as service:
        host, port = sock.getsockname()[:2]
        assert world.keep(service, sock)["kept"] is True
        sock.close()
        world.ends(service)
    assert world.take(port, host) == port


def test_connections_wait_in_the_kernel_for_the_next_service(world: World) -> None:
    with listening() as sock, world.connect() as service:
        port = port_of(sock)
        world.keep(service, sock)
        sock.close()
        world.ends(service)
    with socket.create_connection((LOOPBACK, port)) as client, world.connect() as following:
        client.sendall(b"early")
        send(following, {"verb": "take", "host": LOOPBACK, "port": port})
        world.keeper.step(5)
        _, found = receive(following)
        assert found
        with found, found.accept()[0] as accepted:
            accepted.settimeout(5)
            assert accepted.recv(5) == b"early"


def test_a_service_that_runs_is_not_made_to_wait_in_accept(world: World) -> None:
    """Whether a socket blocks is one setting for all who have it."""
    with listening() as sock, world.connect() as service:
        world.keep(service, sock)
        assert not os.get_blocking(sock.fileno())
        world.take(port_of(sock))
        assert not os.get_blocking(sock.fileno())


def test_where_nobody_comes_in_time_clients_are_refused_again(world: World) -> None:
    with listening() as sock, world.connect() as service:
        port = port_of(sock)
        world.keep(service, sock)
        sock.close()
        assert world.shelf.expire() is None, "as long as its service is there"
        world.ends(service)
    world.now += HOLD_S - 1
    assert world.shelf.expire() == pytest.approx(1)
    assert not refused(port)
    world.now += 1
    assert world.shelf.expire() is None
    assert refused(port)
    assert world.take(port) == 0
    assert f"{LOOPBACK}:{port}: nobody came for it" in world.said[-2]


def test_a_socket_that_nobody_serves_is_not_in_the_way_of_one_at_all_addresses(world: World) -> None:
    with listening() as sock, listening() as other, world.connect() as service:
        port, apart = port_of(sock), port_of(other)
        world.keep(service, sock)
        world.keep(service, other)
        sock.close()
        other.close()
        assert world.take(port, "0.0.0.0") == 0  # noqa: S104 - a name of a place
        assert not refused(port), "its service is there"
        world.ends(service)
    assert world.take(port, "0.0.0.0") == 0  # noqa: S104 - a name of a place
    with socket.create_server(("0.0.0.0", port)):  # noqa: S104 - as the next service does
        assert not refused(port)
    assert refused(port)
    assert world.take(apart) == apart, "another port is not touched"


def test_services_that_take_it_and_die_at_their_start_buy_no_time(world: World) -> None:
    with listening() as sock, world.connect() as service:
        port = port_of(sock)
        world.keep(service, sock)
        sock.close()
        world.ends(service)
    for _ in range(3):
        world.now += HOLD_S / 4
        assert world.take(port) == port
        world.shelf.expire()
    world.now += HOLD_S / 4
    world.shelf.expire()
    assert refused(port)


def test_the_end_of_a_service_that_was_replaced_changes_nothing(world: World) -> None:
    """The old one lets its streams end while the new one serves already."""
    with listening() as sock, world.connect() as old, world.connect() as new:
        world.keep(old, sock)
        world.keep(new, sock)
        world.ends(old)
        assert world.shelf.expire() is None
        world.ends(new)
        assert world.shelf.expire() == HOLD_S


def test_a_new_socket_at_the_place_takes_that_of_the_old_one(world: World) -> None:
    with listening() as sock, world.connect() as old:
        port = port_of(sock)
        world.keep(old, sock)
        sock.shutdown(socket.SHUT_RDWR)  # it listens no more, for nobody
        assert world.take(port) == 0
    with socket.create_server((LOOPBACK, port)) as again, world.connect() as new:
        world.keep(new, again)
        world.ends(old)
        assert world.take(port) == port


def test_nobody_else_is_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as sock, world.connect() as service:
        world.keep(service, sock)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with world.connect() as stranger:
            assert stranger.recv(1) == b""
        assert "is not answered" in world.said[-1]


def test_nobody_else_comes_to_the_door(world: World) -> None:
    assert (world.folder / NAME).stat().st_mode & 0o777 == 0o600


def test_a_socket_that_is_not_what_it_is_said_to_be_is_refused(world: World) -> None:
    with listening() as sock, socket.socket() as quiet, socket.create_connection(sock.getsockname()) as joined:
        quiet.bind((LOOPBACK, 0))
        place = {"host": LOOPBACK, "port": port_of(sock)}
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams:
            datagrams.bind((LOOPBACK, 0))
            for wrong in (quiet, joined, datagrams):
                with world.connect() as service:
                    answer, _ = world.tell(service, {"verb": "keep", **place}, wrong)
                assert "no socket that listens" in answer["error"]
                world.keeper.step(0)
        with world.connect() as service:
            answer, _ = world.tell(service, {"verb": "keep", **place, "port": free_port()}, sock)
        assert "it listens at" in answer["error"]
    assert world.take(place["port"]) == 0  # type: ignore[arg-type]  # it is the port


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"hello", "no JSON"),
        (b"[]", "version"),
        (b'{"version": 2, "verb": "take", "host": "127.0.0.1", "port": 80}', "version"),
        (b'{"version": 1, "verb": "take"}', "no address and port"),
        (b'{"version": 1, "verb": "take", "host": "127.0.0.1", "port": true}', "no address and port"),
        (b'{"version": 1, "verb": "take", "host": "localhost", "port": 80}', "is no address"),
        (b'{"version": 1, "verb": "keep", "host": "127.0.0.1", "port": 80}', "neither"),
        (b'{"version": 1, "verb": "drop", "host": "127.0.0.1", "port": 80}', "neither"),
        (b"[" * 500, "no JSON"),
        (b" " * 5000, "too long"),
    ],
)
def test_whoever_says_something_else_is_told_why_and_left(world: World, raw: bytes, why: str) -> None:
    with world.connect() as connection, listening() as sock:
        connection.send(raw)
        world.keeper.step(5)
        assert why in json.loads(connection.recv(1000))["error"]
        assert connection.recv(1000) == b""
        with world.connect() as service:  # and the next one is answered
            assert world.keep(service, sock)["kept"] is True


def test_more_descriptors_than_one_are_closed(world: World) -> None:
    before = descriptors()
    with listening() as sock, world.connect() as connection:
        host, port = sock.getsockname()
        data = json.dumps({"version": 1, "verb": "keep", "host": host, "port": port}).encode()
        socket.send_fds(connection, [data], [sock.fileno()] * 9)
        world.keeper.step(5)
        assert "too long" in json.loads(connection.recv(1000))["error"]
    assert descriptors() == before


def test_there_are_not_more_sockets_than_a_service_has(world: World) -> None:
    with world.connect() as service:
        for number in range(MOST_SOCKETS + 1):
            with listening() as sock:
                answer = world.keep(service, sock)
            assert ("error" in answer) == (number == MOST_SOCKETS)


def test_there_are_not_more_connections_than_services(world: World) -> None:
    connections = [world.connect() for _ in range(MOST_CONNECTIONS + 1)]
    assert connections[-1].recv(1) == b""
    for connection in connections:
        connection.close()


def test_a_door_that_was_left_is_opened_again_and_one_that_is_used_is_not(tmp_path: Path) -> None:
    open_door(tmp_path).close()  # as one that was killed
    with open_door(tmp_path), pytest.raises(FileExistsError):
        open_door(tmp_path)


def test_whoever_starts_it_wrongly_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listen_keeper.main([]) == 2
    assert "Usage:" in capsys.readouterr().err
    assert listen_keeper.main([str(tmp_path / "none")]) == 1
    assert "Fix: " in capsys.readouterr().err


def test_places_are_written_as_people_do() -> None:
    assert str(place_of({"host": "::1", "port": 80})) == "[::1]:80"
    assert str(Place(LOOPBACK, 80)) == "127.0.0.1:80"
    with listening() as sock, pytest.raises(RefusedError, match="not at"):
        check_listens(sock, Place(LOOPBACK, port_of(sock) + 1))


def test_whether_one_answers_is_told_for_its_own_user_and_for_others(tmp_path: Path) -> None:
    door = tmp_path / NAME
    assert not answers(door, 1.0)
    with keeper_process(tmp_path) as process:
        assert answers(door, SOON_S)
        process.send_signal(signal.SIGSTOP)
        assert not answers(door, 0.1)
    door.unlink(missing_ok=True)
    with open_door(tmp_path) as listening:  # which hangs up, as a keeper does on another user
        listening.settimeout(SOON_S)
        hung_up = threading.Thread(target=lambda: listening.accept()[0].close())
        hung_up.start()
        assert answers(door, SOON_S)
        hung_up.join()
    assert not answers(door, 1.0)
