"""The parent of a sandboxed program: starts it, watches what it uses, and ends all of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from roost.agent.sandbox.bubblewrap import ENVIRONMENT, NOTHING, command_line, system_of
from roost.agent.sandbox.guards import Guard, Limits
from roost.agent.sandbox.syscalls import seccomp_filter
from roost.ops.errors import RoostError

LOOK_S = 0.1
TRY_S = 10.0
BLOCK_BYTES = 1 << 16
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Ran:
    """How a program ended. `ended_for`: why the parent ended it, '' if it ended by itself."""

    code: int
    output: bytes
    ended_for: str


class Sandbox(Protocol):
    """Whoever can run a program so that it reaches a workspace and nothing else."""

    def missing(self) -> str:
        """Say what keeps it from working on this machine; '' if nothing."""
        ...

    async def run(
        self, program: Sequence[str], root: Path, limits: Limits, *, kept: Sequence[str], hidden: Sequence[str]
    ) -> Ran:
        """Run a program to its end; cancelling ends it at once."""
        ...


class Bubblewrap:
    """The sandbox of Linux. All that can be given is for tests: guards left out, who runs it, what it could inherit."""

    def __init__(
        self,
        *,
        without: Collection[Guard] = NOTHING,
        user: int | None = None,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
        standard_input: int | None = None,
    ) -> None:
        self._without = frozenset(without)
        self._user = user
        self._environment = dict(environment or {})
        self._descriptors = tuple(descriptors)
        self._input = standard_input

    def missing(self) -> str:
        """Say whether bubblewrap and prlimit are there, and the kernel lets it do its work."""
        gone = [name for name in ("bwrap", "prlimit") if shutil.which(name) is None]
        if gone:
            return f"{' and '.join(gone)} is not installed (Debian: apt-get install bubblewrap util-linux)"
        return refused_by_kernel()

    async def run(
        self,
        program: Sequence[str],
        root: Path,
        limits: Limits,
        *,
        kept: Sequence[str] = (),
        hidden: Sequence[str] = (),
    ) -> Ran:
        """Run a program; see `Sandbox`.

        Raises:
            RoostError: there is no sandbox on this machine: nothing is run without one.
        """
        if gone := self.missing():
            raise RoostError(f"No program is run: {gone}.", fix="apt-get install bubblewrap")
        filters = seccomp_filter()
        seccomp_fd = memory_file(filters) if filters is not None else None
        try:
            inside = system_of(root, kept, hidden)
            words = command_line(program, inside, limits, seccomp_fd=seccomp_fd, without=self._without)
            return await self._supervised(words, seccomp_fd, root, limits)
        finally:
            if seccomp_fd is not None:
                os.close(seccomp_fd)

    async def _supervised(self, words: list[str], seccomp_fd: int | None, root: Path, limits: Limits) -> Ran:
        cleaned = Guard.ENVIRONMENT not in self._without
        bare = Guard.DESCRIPTORS in self._without
        passed = [fd for fd in (seccomp_fd,) if fd is not None] + (list(self._descriptors) if bare else [])
        process = await asyncio.create_subprocess_exec(
            *words, stdin=self._input if bare and self._input is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=dict(ENVIRONMENT) if cleaned else {**ENVIRONMENT, **self._environment}, pass_fds=passed,
            start_new_session=Guard.SESSION not in self._without, user=self._user,
        )  # fmt: skip
        output = bytearray()
        reading = asyncio.create_task(_collect(process, output, limits.output_bytes))
        watching = asyncio.create_task(self._watch(process.pid, root, limits, output))
        try:
            await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
            reason = watching.result() if watching.done() else ""
            if reason:
                _end(process)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 5.0 if reason else None)
            if Guard.PROCESSES not in self._without:
                await reading
            return Ran(process.returncode or 0, bytes(output[: limits.output_bytes]), reason)
        finally:
            _end(process)
            for task in (reading, watching):
                task.cancel()

    async def _watch(self, pid: int, root: Path, limits: Limits, output: bytearray) -> str:
        """Return why it has to end, as soon as it has to."""
        loop = asyncio.get_running_loop()
        end, free = loop.time() + limits.seconds, _free_bytes(root)
        while True:
            await asyncio.sleep(LOOK_S)
            if Guard.WATCH in self._without and loop.time() < end + 10:
                continue
            if loop.time() > end:
                return f"it took more than {limits.seconds:.0f} s"
            if len(output) > limits.output_bytes:
                return f"it said more than {limits.output_bytes:,} bytes"
            if free - _free_bytes(root) > limits.disk_bytes:
                return f"the disk lost more than {limits.disk_bytes:,} bytes meanwhile"
            if memory_bytes(pid) > limits.memory_bytes:
                return f"it used more than {limits.memory_bytes:,} bytes of memory"


KERNEL_GIVES = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--new-session",
    "--disable-userns",
)  # fmt: skip
"""What `command_line` asks of the kernel: a container may give namespaces, and no /proc for them."""


@cache
def refused_by_kernel() -> str:
    """Say why bubblewrap cannot make a sandbox here; '' if it can. Tried once in a process."""
    words = ["bwrap", *KERNEL_GIVES, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "true"]
    try:
        tried = subprocess.run(words, capture_output=True, text=True, timeout=TRY_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start ({error})"
    if tried.returncode == 0:
        return ""
    said = " ".join(tried.stderr.split())[:200] or f"exit code {tried.returncode}"
    return (
        f"bubblewrap may not make namespaces here ({said}); `sysctl user.max_user_namespaces`, "
        "`kernel.unprivileged_userns_clone` and `kernel.apparmor_restrict_unprivileged_userns` say whether users may; "
        "a container has to show all of /proc"
    )


async def _collect(process: asyncio.subprocess.Process, output: bytearray, limit: int) -> None:
    if process.stdout is None:
        return
    while block := await process.stdout.read(BLOCK_BYTES):
        output += block[: max(0, limit + 1 - len(output))]


def _end(process: asyncio.subprocess.Process) -> None:
    """End bubblewrap: its process namespace goes with it."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process.pid, signal.SIGKILL)


def memory_file(data: bytes) -> int:
    """Return a descriptor of a file that is nowhere, with this content, to be read from its beginning."""
    handle = os.memfd_create("seccomp")
    os.write(handle, data)
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _free_bytes(root: Path) -> int:
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize


def memory_bytes(pid: int) -> int:
    """Return the resident bytes of a process and all below it."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        with suppress(OSError, ValueError):
            base = Path("/proc") / str(one)
            total += int((base / "statm").read_text().split()[1]) * PAGE_BYTES
            for thread in (base / "task").iterdir():
                waiting += [int(child) for child in (thread / "children").read_text().split()]
    return total
