"""What `roost setup` does in the end: fetch, write, run the playbook as ./bootstrap.sh does; and how it is stopped."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from roost.cli.images import progress
from roost.cli.model_files import site_places
from roost.cli.setup_machine import Machine
from roost.fleet.setup import Proposal
from roost.models.fetch import ensure_models
from roost.models.lock_file import default_path
from roost.models.pull import known_downloads
from roost.ops.errors import RoostError

STOPPED = 130
STDERR = 2
SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class SetupStoppedError(Exception):
    """The user wants no more of it."""


@dataclass
class Journal:
    """What was done so far."""

    fetching: bool = False
    fetched: list[str] = field(default_factory=list)
    written: Path | None = None
    applying: bool = False
    applied: bool = False

    def words(self) -> str:
        """Say what was done and what was not."""
        if not (self.fetching or self.fetched or self.written):
            return "Nothing was changed."
        done = [f"fetched: {', '.join(self.fetched)}"] if self.fetched else []
        if self.fetching:
            done.append("a download was begun and is kept; the next run goes on with it")
        if self.written is None:
            done.append("no setting was changed, and what runs is as before")
        else:
            done.append(f"{self.written} was written (`roost setup --undo` puts the previous one back)")
            how = "was begun; run ./bootstrap.sh to go on" if self.applying else "was not done; ./bootstrap.sh does it"
            done.append(f"starting it {how}")
        text = "; ".join(done)
        return f"{text[0].upper()}{text[1:]}."


class Keyboard:
    """What a user types, line by line; a signal ends the wait for it.

    `input` alone would sleep on if a signal came just before it began to wait: Python looks at signals only afterwards.
    Until a line is whole a terminal gives nothing, so waiting for it here takes nothing away from its editing.
    """

    def __init__(self, woken: int) -> None:
        """Wait on standard input and on `woken`, a pipe that each signal writes to."""
        self._woken = woken

    def line(self) -> str:
        """Return the next line without its end.

        Raises:
            EOFError: there is no more.
        """
        if sys.stdin.isatty():
            select.select([sys.stdin, self._woken], [], [])
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")


@contextmanager
def stoppable(journal: Journal) -> Iterator[Keyboard]:
    """End in words when the user leaves, the terminal closes, or the process is asked to end.

    Raises:
        RoostError: it was stopped (exit code 130), or it failed; says what was done.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise SetupStoppedError

    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    waked_before = signal.set_wakeup_fd(wake)
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield Keyboard(woken)
    except (KeyboardInterrupt, EOFError, SetupStoppedError):
        raise RoostError(f"Stopped. {journal.words()}", exit_code=STOPPED) from None
    except RoostError as error:
        if not (journal.fetched or journal.written):
            raise
        raise RoostError(f"{error.message}\n{journal.words()}", fix=error.fix, exit_code=error.exit_code) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(waked_before)
        os.close(woken)
        os.close(wake)


def fetch(machine: Machine, proposal: Proposal, journal: Journal, *, quiet: bool) -> None:
    """Have the files of the models here, verified.

    Raises:
        RoostError: one cannot be had.
    """
    references = [offer.model for offer in proposal.offers if not offer.model.startswith("/")]
    places = site_places(machine.site, progress(quiet=quiet))
    journal.fetching = any(offer.download != 0 for offer in proposal.offers)
    models = known_downloads(references, machine.catalogue, places, default_path())
    done = ensure_models(models, places)
    journal.fetching = False
    journal.fetched = [outcome.name for outcome in done if outcome.changed]


def play(release: Path, *, quiet: bool) -> None:
    """Run the release's own bootstrap.sh, which runs the playbook and ends with the model's answer.

    A signal reaches it too; it then ends in its own way, and is waited for. `quiet` sends its words to standard error.

    Raises:
        RoostError: it failed; it has said why.
    """
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    sys.stdout.flush()
    running: list[subprocess.Popen[bytes]] = []
    early: list[int] = []  # it may say its first word before it is known here by its process

    def hand_on(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:  # that one the terminal gives to both
            return
        if not running:
            early.append(number)
        for child in running:
            child.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, *SIGNALS)}
    try:
        command = ["sh", str(release / "bootstrap.sh"), "--yes"]
        out = STDERR if quiet else None
        running.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out))
        for number in early:
            running[0].send_signal(number)
        code = running[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code in {STOPPED, 128 + signal.SIGTERM}:
        raise SetupStoppedError
    if code != 0:
        raise RoostError(
            f"The models could not be started (exit code {code}); the reason stands above.",
            fix="Correct that and run ./bootstrap.sh; or `roost setup --undo`, then ./bootstrap.sh, to go back.",
        )
