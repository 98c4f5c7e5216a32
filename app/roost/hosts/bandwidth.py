"""Measure memory bandwidth: less than a second on a quiet machine, one process a core, buffers larger than the caches.

Standard library only, Python 3.9+. Copies between two buffers are counted as read plus written, as STREAM's Copy does
(McCalpin, https://www.cs.virginia.edu/stream/), and as there the best of a few rounds counts: what else runs can only
slow them down. While the machine is too busy to give the probe its cores there are more rounds. Processes, since a copy
in Python holds the interpreter's lock.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from roost.ops.errors import RoostError

MIB = 1 << 20
GB = 10**9
ROUND_S = 0.2
ROUNDS = 3
MOST_ROUNDS = 15  # while no round was quiet
QUIET_SHARE = 0.9  # of its time a process of the probe computed
BUSY_NOTE = " on a busy machine"
BUSY_FACTOR = 5.0  # a busy machine's memory may be so many times faster than its figure: 10 for 40 GB/s was seen
START_TIMEOUT_S = 60.0  # buffers of gigabytes come slowly on a machine that is far too busy
LEAST_BUFFER_MIB = 64
CACHES = 4  # a buffer is so many times the last cache, lest the copy stays inside
MEMORY_SHARE = 0.25  # of what is available, all buffers together take no more
IMPORTS = str(Path(__file__).parents[2])  # where the package lies: a folder or a zipapp
CHILD = "import sys; sys.path.insert(0, sys.argv[3]); from roost.hosts import bandwidth; bandwidth.work()"
READY, GO = "ready", "go"


@dataclass(frozen=True)
class Bandwidth:
    """GB/s (10^9 bytes) read plus written, and what was measured in words.

    `busy`: other work took the processors meanwhile, so memory may be faster than this.
    """

    gbs: float
    processes: int
    buffer_mib: int
    seconds: float
    measured: str
    busy: bool = False

    @property
    def most_gbs(self) -> float:
        """What the memory may give when nothing else runs."""
        return self.gbs * BUSY_FACTOR if self.busy else self.gbs


def plan(cores: int, cache_mib: int, available_mib: int) -> tuple[int, int]:
    """Return processes and the size of each one's two buffers in MiB that fit the memory; 0 processes if none does."""
    buffer = max(LEAST_BUFFER_MIB, CACHES * cache_mib // max(1, cores))
    room = int(available_mib * MEMORY_SHARE) // (2 * buffer)
    return min(max(1, cores), room), buffer


def probe(cores: int, cache_mib: int, available_mib: int, seconds: float = ROUND_S) -> Bandwidth:
    """Measure this machine in rounds of so many seconds.

    Raises:
        RoostError: memory is too short for the buffers, or a process of the probe failed.
    """
    processes, buffer = plan(cores, cache_mib, available_mib)
    if not processes:
        raise RoostError(
            f"{available_mib} MiB of memory are free, too little to measure its speed.", fix="End what is not needed."
        )
    command = [sys.executable, "-I", "-S", "-c", CHILD, str(buffer), str(seconds), IMPORTS]
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        for _ in range(processes)
    ]
    try:
        rounds: list[Bandwidth] = []
        while len(rounds) < ROUNDS or (best(rounds).busy and len(rounds) < MOST_ROUNDS):
            rounds.append(combine(_together(workers), buffer))
        return best(rounds)
    except (OSError, subprocess.TimeoutExpired):
        raise RoostError("The memory probe did not end.", fix="Try again when the machine is less busy.") from None
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _together(workers: Sequence[subprocess.Popen[str]]) -> list[tuple[int, float, float]]:
    """Start a round when the last process is ready; return bytes moved, seconds and processor seconds of each."""
    for worker in workers:
        _hear(worker, READY)
    for worker in workers:
        if worker.stdin is not None:
            worker.stdin.write(f"{GO}\n")
            worker.stdin.flush()
    found: list[tuple[int, float, float]] = []
    for worker in workers:
        moved, seconds, computed = _hear(worker).split()
        found.append((int(moved), float(seconds), float(computed)))
    return found


def _hear(worker: subprocess.Popen[str], wanted: str = "") -> str:
    """Return what a process says; it is killed when it says nothing in time.

    Raises:
        RoostError: it ended, or said something else than `wanted`.
    """
    timer = threading.Timer(START_TIMEOUT_S, worker.kill)
    timer.start()
    try:
        line = worker.stdout.readline().strip() if worker.stdout else ""
    finally:
        timer.cancel()
    if not line or (wanted and line != wanted):
        raise RoostError("A process of the memory probe failed.", fix="Try again with more memory free.")
    return line


def best(rounds: Sequence[Bandwidth]) -> Bandwidth:
    """Return the fastest round, with the seconds of all; it was quiet if any of them was."""
    fastest = max(rounds, key=lambda found: found.gbs)
    busy = all(found.busy for found in rounds)
    note = f", best of {len(rounds)}" if len(rounds) > 1 else ""
    note += BUSY_NOTE if busy else ""
    seconds = round(sum(found.seconds for found in rounds), 2)
    return replace(fastest, seconds=seconds, measured=f"{fastest.measured}{note}", busy=busy)


def combine(moved: Sequence[tuple[int, float, float]], buffer_mib: int) -> Bandwidth:
    """Add up what the processes moved at the same time: bytes, seconds and processor seconds of each."""
    gbs = sum(count / seconds for count, seconds, _ in moved) / GB
    seconds = max(seconds for _, seconds, _ in moved)
    busy = any(computed < QUIET_SHARE * took for _, took, computed in moved)
    text = (
        f"{len(moved)} process{'' if len(moved) == 1 else 'es'} copying {buffer_mib} MiB buffers for {seconds:.1f} s, "
        "read plus written"
    )
    return Bandwidth(round(gbs, 1), len(moved), buffer_mib, round(seconds, 2), text, busy)


def work() -> None:
    """Be one process of the probe: a round for each line that comes in."""
    buffer_mib, seconds = int(sys.argv[1]), float(sys.argv[2])
    source, target = memoryview(bytearray(buffer_mib * MIB)), memoryview(bytearray(buffer_mib * MIB))
    target[:] = source  # the first write maps the pages
    while _say(READY) and sys.stdin.readline():
        moved, start, computed = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - start < seconds:
            target[:] = source
            moved += 2 * len(source)
        _say(f"{moved} {time.perf_counter() - start} {time.process_time() - computed}")


def _say(line: str) -> bool:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return True
