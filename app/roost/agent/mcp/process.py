"""A server that is a program: started in the sandbox with a closed environment, bounded in what it says, ended whole.

The package's own transport reads lines without a bound, and hands the user's environment on; this one does neither.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

from roost.agent.sandbox.bubblewrap import ENVIRONMENT, Inside, command_line, system_of
from roost.agent.sandbox.guards import Guard, Limits
from roost.agent.sandbox.parent import Bubblewrap, memory_bytes, memory_file
from roost.agent.sandbox.syscalls import seccomp_filter
from roost.agent.tools.errors import RefusedError

MOST_LINE_BYTES = 4 << 20
MOST_NOISE = 200
"""Lines that are no messages, after which a program is taken for none that speaks the protocol."""
TAIL_BYTES = 2000
BLOCK_BYTES = 1 << 16
GRACE_S = 1.5
"""How long it may take to end by itself, and again when it is asked to."""
LOOK_S = 1.0
LIMITS = Limits(processes=512, open_files=4096, address_bytes=1 << 40)
"""Programs in other languages map far more addresses than they use; `memory_bytes` is what holds them."""
Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@dataclass
class Ended:
    """How a server stands: `event` is set when it is gone, `why` and the end of what it said as errors tell more."""

    event: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""
    tail: bytearray = field(default_factory=bytearray)

    def end(self, why: str) -> None:
        """Say that it is gone; the first reason counts."""
        self.why = self.why or why
        self.event.set()


@dataclass(frozen=True)
class Program:
    """What is started. `folder` is the one that it sees as /workspace; without a sandbox it runs there."""

    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    sandbox: bool = True
    network: bool = False
    read: Sequence[str] = ()
    closed: bool = False
    kept: Sequence[str] = ()
    hidden: Sequence[str] = ()


def environment_of(program: Program) -> dict[str, str]:
    """Return all variables that a program gets: a few with fixed values, and those that its user named."""
    mine = dict(ENVIRONMENT)
    if not program.sandbox:
        mine |= {"HOME": str(Path.home()), "PATH": os.environ.get("PATH", ENVIRONMENT["PATH"])}
    return {**mine, **program.environment}


def words_of(program: Program, seccomp_fd: int | None) -> list[str]:
    """Return the command line that starts a program.

    Raises:
        RefusedError: there is no such program, or it is to run in a sandbox and there is none.
    """
    if not program.sandbox:
        if shutil.which(program.words[0], path=environment_of(program)["PATH"]) is None:
            raise RefusedError(f"there is no program {program.words[0]}")
        die = shutil.which("setpriv")
        return [*([die, "--pdeathsig", "KILL", "--no-new-privs", "--"] if die else []), *program.words]
    if gone := Bubblewrap().missing():
        raise RefusedError(f"Without a sandbox it is not started: {gone}.")
    system = system_of(program.folder, program.kept, program.hidden)
    inside = Inside(
        program.folder, program.kept, program.hidden, system.links, system.folders, program.read, program.closed,
        program.network,
    )  # fmt: skip
    return command_line(program.words, inside, LIMITS, seccomp_fd=seccomp_fd, without={Guard.ENVIRONMENT})


@asynccontextmanager
async def running(program: Program, ended: Ended) -> AsyncGenerator[Streams]:
    """Start a program and speak with it until the context ends: then all of it is gone.

    Outside the sandbox that is its process group: a child that made a session of its own stays.

    Raises:
        OSError: it cannot be started.
        RefusedError: there is no sandbox.
    """
    filters = seccomp_filter() if program.sandbox else None
    seccomp_fd = memory_file(filters) if filters is not None else None
    try:
        process = await asyncio.create_subprocess_exec(
            *words_of(program, seccomp_fd), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env=environment_of(program), start_new_session=True,
            pass_fds=[fd for fd in (seccomp_fd,) if fd is not None],
            cwd="/" if program.sandbox else program.folder,
        )  # fmt: skip
    finally:
        if seccomp_fd is not None:
            os.close(seccomp_fd)
    heard_by, heard = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    said, said_by = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(_read(process, heard_by, ended)),
        asyncio.create_task(_write(process, said_by, ended)),
        asyncio.create_task(_errors(process, ended)),
        asyncio.create_task(_watch(process, ended)),
    ]
    try:
        yield heard, said
    finally:
        heard.close()
        said.close()
        try:
            await _stop(process)
        finally:
            _kill(process, signal.SIGKILL)  # also where this is cancelled while it waits
            for task in tasks:
                task.cancel()
            heard_by.close()
            said_by.close()


async def _read(
    process: asyncio.subprocess.Process, to: MemoryObjectSendStream[SessionMessage | Exception], ended: Ended
) -> None:
    """Hand on what it says, line by line; what is no message is not."""
    waiting, noise = bytearray(), 0
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
        while block := await _output(process).read(BLOCK_BYTES):
            *lines, rest = (waiting + block).split(b"\n")
            waiting = bytearray(rest)
            if len(waiting) > MOST_LINE_BYTES or any(len(line) > MOST_LINE_BYTES for line in lines):
                ended.end(f"it said more than {MOST_LINE_BYTES:,} bytes in one message")
                break
            for line in filter(None, (line.strip() for line in lines)):
                message = _message(bytes(line))
                if message is None:
                    noise += 1
                    continue
                await to.send(message)
            if noise > MOST_NOISE:
                ended.end("what it says is no protocol")
                break
    ended.end("it ended")
    to.close()  # who waits for an answer learns that there will be none
    while await _output(process).read(BLOCK_BYTES):  # what is left unread would hold it up
        pass


def _message(line: bytes) -> SessionMessage | None:
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except (ValueError, RecursionError):
        return None


async def _write(
    process: asyncio.subprocess.Process, source: MemoryObjectReceiveStream[SessionMessage], ended: Ended
) -> None:
    if process.stdin is None:
        return
    try:
        async for item in source:
            text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(f"{text}\n".encode())
            await process.stdin.drain()
    except (OSError, anyio.ClosedResourceError):
        ended.end("it does not read")


async def _errors(process: asyncio.subprocess.Process, ended: Ended) -> None:
    if process.stderr is None:
        return
    while block := await process.stderr.read(BLOCK_BYTES):
        ended.tail += block
        del ended.tail[:-TAIL_BYTES]


async def _watch(process: asyncio.subprocess.Process, ended: Ended) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        if memory_bytes(process.pid) > LIMITS.memory_bytes:
            ended.end(f"it used more than {LIMITS.memory_bytes:,} bytes of memory")
            _kill(process, signal.SIGKILL)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End it as the protocol says: its input is closed, then it is asked to, then it is made to."""
    if process.stdin:
        process.stdin.close()
    for step in (None, signal.SIGTERM, signal.SIGKILL):
        if step:
            _kill(process, step)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_S)
            return


def _kill(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to all of its process group. The group is its own: it was started in a new session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _output(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    if process.stdout is None:
        raise RuntimeError("it was started without a pipe")
    return process.stdout
