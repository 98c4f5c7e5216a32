"""`roost logs`: what a part of Roost wrote."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from roost.fleet.jobs import MONITORING_JOB, SEARCH_JOB
from roost.fleet.nomad_api import NomadClient
from roost.ops import service_names
from roost.ops.errors import NOT_FOUND, RoostError
from roost.ops.site import Site, load_site

BYTES_A_LINE = 400
MOST_BYTES = 8 << 20
STREAMS = ("stdout", "stderr")
SYSTEMD_BOOTED = Path("/run/systemd/system")


def logs(
    source: Annotated[
        str, typer.Argument(help="agent, nomad, bootstrap, search, monitoring, or a model server's slot (main).")
    ] = "agent",
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help='Print {"line": ...} for each line.')] = False,
) -> None:
    """Show what the agent, a model server, Nomad or the set-up logged.

    Example: roost logs main -f
    """
    site = load_site()
    if source == "nomad":
        found = _of_command(nomad_command(site.log_dir, lines, follow=follow))
    elif source == "bootstrap":
        found = _of_command(bootstrap_command(site.log_dir, lines, follow=follow))
    else:
        job = job_of(site, source)
        found = _of_job(NomadClient.from_site(site), job, lines, follow=follow)
    for line in found:
        print(json.dumps({"line": line}, ensure_ascii=False) if as_json else line, flush=True)


def job_of(site: Site, source: str) -> str:
    """Return the job whose log `source` names.

    Raises:
        RoostError: there is no such log; the fix names those there are.
    """
    jobs = {"agent": site.agent_job, **{slot.slot: slot.job for slot in site.slots}}
    beside = {"monitoring": (MONITORING_JOB, site.monitoring), "search": (SEARCH_JOB, site.search)}
    jobs |= {name: job for name, (job, address) in beside.items() if address}
    if source not in jobs:
        known = ", ".join([*jobs, "nomad", "bootstrap"])
        raise RoostError(f"There is no log of {source!r}.", fix=f"Use one of: {known}.", exit_code=NOT_FOUND)
    return jobs[source]


def nomad_command(log_dir: Path, lines: int, *, follow: bool) -> list[str]:
    """Return the command that shows Nomad's log: its file where there is one, else the journal.

    Raises:
        RoostError: there is neither.
    """
    for name in (f"{service_names.NOMAD}.log", "nomad.log"):
        if _is_file(log_dir / name):
            return _tail(log_dir / name, lines, follow=follow)
    if SYSTEMD_BOOTED.is_dir() and shutil.which("journalctl"):
        extra = ["--follow"] if follow else []
        return ["journalctl", "--no-pager", "--output=cat", f"--unit={service_names.NOMAD}", f"--lines={lines}", *extra]
    raise RoostError(f"There is no log of Nomad in {log_dir}.", fix="See `roost doctor`.")


def bootstrap_command(log_dir: Path, lines: int, *, follow: bool) -> list[str]:
    """Return the command that shows the newest log of `bootstrap.sh`.

    Raises:
        RoostError: there is none.
    """
    _is_file(log_dir / "bootstrap.log")  # says so when the folder may not be read
    found = sorted(log_dir.glob("bootstrap*.log"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise RoostError(f"There is no log of bootstrap.sh in {log_dir}.", fix="Run ./bootstrap.sh.")
    return _tail(found[-1], lines, follow=follow)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        raise RoostError(
            f"{path.parent} can only be read by root.", fix="Run the command with sudo.", exit_code=4
        ) from None


def _tail(path: Path, lines: int, *, follow: bool) -> list[str]:
    return ["tail", "-n", str(lines), *(["-F"] if follow else []), str(path)]


def _of_command(argv: list[str]) -> Iterator[str]:
    """Yield what a program prints, line by line; ends it when the caller stops."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace") as shown:
        try:
            if shown.stdout is not None:
                for line in shown.stdout:
                    yield line.rstrip("\n")
        finally:
            shown.terminate()


def _of_job(client: NomadClient, job: str, lines: int, *, follow: bool) -> Iterator[str]:
    alloc, task = _newest(client, job)
    size = min(lines * BYTES_A_LINE, MOST_BYTES)
    if follow:
        yield from _merged([split(client.logs(alloc, task, kind, follow=True, last_bytes=size)) for kind in STREAMS])
        return
    for kind in STREAMS:
        yield from deque(split(client.logs(alloc, task, kind, last_bytes=size)), maxlen=lines)


def _newest(client: NomadClient, job: str) -> tuple[str, str]:
    """Return allocation and task of a job: one that runs, else the newest that has a task."""
    found = [a for a in client.allocations(job) if a.get("TaskStates")]
    if not found:
        raise RoostError(f"The job {job} has not started yet, so there is no log.", fix="See `roost jobs`.")
    running = [a for a in found if a.get("ClientStatus") == "running"]
    chosen = (running or found)[0]
    return str(chosen["ID"]), str(next(iter(chosen["TaskStates"])))


def split(blocks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a stream of blocks."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _merged(streams: list[Iterator[str]]) -> Iterator[str]:
    """Yield lines of several endless streams as they come; ends when all have ended."""
    lines: queue.Queue[str | RoostError | None] = queue.Queue()

    def read(stream: Iterator[str]) -> None:
        try:
            for line in stream:
                lines.put(line)
        except RoostError as error:
            lines.put(error)
        finally:  # always: who reads the queue waits for it
            lines.put(None)

    for stream in streams:
        threading.Thread(target=read, args=(stream,), daemon=True).start()
    ended = 0
    while ended < len(streams):
        line = lines.get()
        if line is None:
            ended += 1
        elif isinstance(line, RoostError):
            raise line
        else:
            yield line
