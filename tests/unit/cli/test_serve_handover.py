"""A service and the keeper of its sockets: whatever the keeper does, the service listens."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from structlog.testing import capture_logs

from roost.cli import serve_handover
from roost.cli.serve_handover import Opened, keep_with, open_sockets
from roost.cli.serve_hub import HubSettings
from roost.cli.serve_listen import Listener
from roost.gateway.settings import Settings
from roost.ops.errors import RoostError
from roost.ops.listen_keeper import FOLDER, NAME, Place
from tests.support.gateway import REPOSITORY
from tests.support.net import eventually, free_port
from tests.support.replaced import SOON_S, keeper_process

LOOPBACK = "127.0.0.1"


@contextmanager
def one_that(folder: Path, reply: bytes) -> Iterator[None]:
    """Have something else answer where the keeper should, with these bytes, or hang up for none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(str(folder / NAME))
        door.listen()

        def answer() -> None:
            with suppress(OSError):
                while True:
                    with door.accept()[0] as connection:
                        connection.recv(1000)
                        if reply:
                            connection.send(reply)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield
        door.shutdown(socket.SHUT_RDWR)
        thread.join(SOON_S)


def opened(folder: Path, port: int) -> Opened:
    (found,) = open_sockets([Listener(LOOPBACK, port, tls=False)], folder / NAME)
    assert found.sock.getsockname() == (LOOPBACK, port)
    assert not os.get_blocking(found.sock.fileno())
    return found


@contextmanager
def kept(folder: Path, *sockets: socket.socket) -> Iterator[asyncio.Task[None]]:
    """Have sockets kept as a service does while it runs."""
    task = asyncio.create_task(keep_with(folder / NAME, sockets))
    try:
        yield task
    finally:
        task.cancel()


async def until_kept(folder: Path, port: int) -> None:
    """Wait until the keeper has it."""

    def there() -> bool:
        kept, _ = serve_handover._kept(folder / NAME, Place(LOOPBACK, port))
        if kept:
            kept.close()
        return bool(kept)

    await eventually(there, SOON_S, "the socket to be kept")


async def test_a_service_takes_over_what_the_one_before_had(tmp_path: Path) -> None:
    port = free_port()
    with keeper_process(tmp_path):
        first = opened(tmp_path, port)
        assert not first.taken_over
        with kept(tmp_path, first.sock):
            await until_kept(tmp_path, port)
        first.sock.close()
        with socket.create_connection((LOOPBACK, port)) as client:
            client.sendall(b"early")
            second = opened(tmp_path, port)
            assert second.taken_over
            with second.sock, second.sock.accept()[0] as accepted:
                assert accepted.recv(5) == b"early"


async def test_a_keeper_that_begins_anew_is_given_it_again(tmp_path: Path) -> None:
    port = free_port()
    first = opened(tmp_path, port)
    with first.sock, capture_logs() as logs, kept(tmp_path, first.sock):
        await eventually(lambda: len(logs) == 1, SOON_S, "it to say that there is none")
        assert logs[0]["event"] == "listeners_not_kept"

        def said() -> int:
            return [log["event"] for log in logs].count("listeners_kept")

        async def said_once_more(before: int) -> None:
            await eventually(lambda: said() == before + 1, SOON_S, "it to be said")

        for _ in range(2):
            before = said()
            with keeper_process(tmp_path) as process:
                await until_kept(tmp_path, port)
                # The keeper has it a moment before it has said so.
                await said_once_more(before)
                process.kill()
            (tmp_path / NAME).unlink()
    assert said() == 2


async def test_where_there_is_no_keeper_that_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_handover, "LONGEST_PAUSE_S", 0.01)
    tried: list[Path] = []
    connect = serve_handover._connect

    def counted(path: Path) -> socket.socket:
        tried.append(path)
        return connect(path)

    monkeypatch.setattr(serve_handover, "_connect", counted)
    first = opened(tmp_path, free_port())
    tried.clear()
    with first.sock, capture_logs() as logs, kept(tmp_path, first.sock):
        await eventually(lambda: len(tried) > 4, SOON_S, "it to be tried again")
    assert [log["event"] for log in logs] == ["listeners_not_kept"]


async def test_when_the_sockets_are_closed_nothing_more_is_tried(tmp_path: Path) -> None:
    first = opened(tmp_path, free_port())
    first.sock.close()
    await asyncio.wait_for(keep_with(tmp_path / NAME, [first.sock]), SOON_S)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"hello",
        b'{"version": 2, "found": true}',
        b'{"version": 1, "error": "no"}',
        b'{"version": 1, "found": true}',
        b"x" * 5000,
    ],
    ids=["hangs up", "no JSON", "another version", "refuses", "sends no socket", "says too much"],
)
def test_whatever_answers_there_the_service_listens(tmp_path: Path, reply: bytes) -> None:
    with one_that(tmp_path, reply):
        found = opened(tmp_path, free_port())
    assert not found.taken_over
    found.sock.close()


def test_a_path_that_is_too_long_or_no_socket_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("")
    for folder in (tmp_path, tmp_path / ("long" * 40)):
        opened(folder, free_port()).sock.close()


def test_a_keeper_of_somebody_else_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with keeper_process(tmp_path):
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        found, why = serve_handover._kept(tmp_path / NAME, Place(LOOPBACK, free_port()))
    assert (found, why) == (None, f"user {os.getuid()} answers there")


def test_a_stuck_keeper_holds_nobody_up_for_long(tmp_path: Path) -> None:
    with keeper_process(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        opened(tmp_path, free_port()).sock.close()
    assert time.monotonic() - begun < SOON_S


def test_a_keeper_that_is_just_ending_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the port for a moment still, and answers no more."""
    monkeypatch.setattr(serve_handover, "PATIENCE_S", SOON_S)
    with socket.create_server((LOOPBACK, 0)) as held:
        port = held.getsockname()[1]
        threading.Timer(0.3, held.close).start()
        opened(tmp_path, port).sock.close()


def test_a_port_that_somebody_else_has_is_said_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_handover, "ANSWER_S", SOON_S)
    monkeypatch.setattr(serve_handover, "PATIENCE_S", 2 * SOON_S)
    with socket.create_server((LOOPBACK, 0)) as taken, keeper_process(tmp_path):
        begun = time.monotonic()
        with pytest.raises(RoostError, match="Cannot listen on") as caught:
            opened(tmp_path, taken.getsockname()[1])
        seconds = time.monotonic() - begun
    assert "roost-listen" not in str(caught.value.fix)
    assert seconds < serve_handover.PATIENCE_S


def test_a_port_that_a_stuck_keeper_may_have_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_handover, "PATIENCE_S", 0.0)
    monkeypatch.setattr(serve_handover, "ANSWER_S", 0.1)
    with socket.create_server((LOOPBACK, 0)) as taken, keeper_process(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(RoostError, match="Cannot listen on") as caught:
            opened(tmp_path, taken.getsockname()[1])
    assert "roost-listen" in str(caught.value.fix)


def test_the_playbook_makes_the_folder_that_services_look_into() -> None:
    defaults = yaml.safe_load((REPOSITORY / "group_vars/all.yaml").read_text())
    assert defaults["roost_listen_dir"] == f"{{{{ roost_agent_state_dir }}}}/{FOLDER}"


async def test_where_none_is_named_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `roost serve` by hand and on staged hosts."""
    monkeypatch.setattr(serve_handover, "_connect", pytest.fail)
    assert Settings(state_dir=tmp_path).listen_keeper is HubSettings(state_dir=tmp_path).listen_keeper is None
    (found,) = open_sockets([Listener(LOOPBACK, 0, tls=False)], None)
    with found.sock, capture_logs() as logs:
        await asyncio.wait_for(keep_with(None, [found.sock]), SOON_S)
    assert logs == []
