"""Work that goes on after its process was killed: DBOS Transact (https://docs.dbos.dev/python) drives it step by step.

One workflow serves all kinds of work: it calls `advance` of the kind until there is nothing to do now. What a step is
about lies in the kind's own tables, never in DBOS's: a later release may change its steps, and work that an earlier one
began goes on. DBOS keeps what is under way, and takes it up again at the next start. What waits for somebody has no
workflow, and so costs nothing; it gets a new one when it is woken.

DBOS has one instance in a process, and so has this: a second `Driver` waits for the first to be closed.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from roost.durable.database import BUSY_MS, FILE_MODE, pragmas
from roost.ops.errors import RoostError

if TYPE_CHECKING:
    from sqlalchemy import Engine

DATABASE = "work.sqlite"
EXECUTOR = "hub"  # the same at every start: what it left unfinished is its own to take up
VERSION = "1"  # never of the source: an upgrade would strand what is under way
WORKFLOW = "roost.drive"
STEP = "roost.advance"


class Next(StrEnum):
    """What a step says of its work: go on at once, or rest: it is finished, or waits until somebody starts it again."""

    GO_ON = "go on"
    REST = "rest"


Advance = Callable[[str], Next]
"""Takes the id of a piece of work one step on. Called again for a step that was cut off, it must see that it was."""


class Driver:
    """The one instance. Steps run in threads of DBOS."""

    _only = threading.Lock()

    def __init__(self, folder: Path, kinds: Mapping[str, Advance]) -> None:
        self._folder = folder
        self._kinds = dict(kinds)
        self._engine: Engine | None = None
        self._guard = threading.Lock()
        self._locks: dict[tuple[str, str], threading.Lock] = {}

    def launch(self) -> None:
        """Start, and take up what was under way.

        Raises:
            RoostError: another driver runs in this process, or the database cannot be used.
        """
        # imported here: a hub without durable work is spared 60 MB
        from dbos import DBOS
        from sqlalchemy.exc import SQLAlchemyError

        if not self._only.acquire(blocking=False):
            raise RoostError("Durable work is driven already in this process.", fix="Close the other driver first.")
        try:
            self._engine = _engine(self._folder / DATABASE)
            logging.getLogger("dbos").setLevel(logging.WARNING)
            DBOS(
                config={
                    "name": "roost", "system_database_engine": self._engine, "executor_id": EXECUTOR,
                    "application_version": VERSION, "log_level": "WARNING", "enable_otlp": False,
                }
            )  # fmt: skip

            @DBOS.step(name=STEP)
            def step(kind: str, key: str) -> str:
                return self._advance(kind, key).value

            @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=1_000_000)
            def drive(kind: str, key: str) -> None:
                while step(kind, key) == Next.GO_ON:
                    pass

            self._drive = drive
            DBOS.launch()
        except SQLAlchemyError as error:
            self.close()
            raise RoostError(
                f"The database of durable work in {self._folder} cannot be used: {error}.",
                fix=f"Put a backup of {DATABASE} back, or move it away.",
            ) from None
        except BaseException:
            self.close()
            raise

    def start(self, kind: str, key: str) -> None:
        """Have a piece of work driven from now on; where it is being driven, it looks once more when that rests."""
        from dbos import DBOS, SetWorkflowID

        with SetWorkflowID(f"{kind}-{key}-{uuid.uuid4()}"):
            DBOS.start_workflow(self._drive, kind, key)

    def ensure(self, kind: str, keys: Iterable[str]) -> None:
        """Have those pieces of work driven that are not: a crash may have come between their record and their start."""
        from dbos import DBOS

        driven = {
            tuple(status.input["args"])
            for status in DBOS.list_workflows(status=["PENDING", "ENQUEUED"], name=WORKFLOW)
            if status.input
        }
        for key in keys:
            if (kind, key) not in driven:
                self.start(kind, key)

    def close(self) -> None:
        """End; work under way is taken up at the next start."""
        from dbos import DBOS

        DBOS.destroy(destroy_registry=True)
        if self._engine:
            self._engine.dispose()
            self._engine = None
        with suppress(RuntimeError):
            self._only.release()

    def _advance(self, kind: str, key: str) -> Next:
        advance = self._kinds.get(kind)
        if advance is None:  # of a later release, which starts its unfinished work itself
            return Next.REST
        with self._guard:
            lock = self._locks.setdefault((kind, key), threading.Lock())
        with lock:  # two workflows of one piece of work take turns
            return advance(key)


def _engine(path: Path) -> Engine:
    from sqlalchemy import create_engine, event

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(FILE_MODE)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_MS / 1000})

    @event.listens_for(engine, "connect")
    def told(connection: object, _record: object) -> None:
        connection.isolation_level = "IMMEDIATE"  # type: ignore[attr-defined]
        for pragma in pragmas():
            connection.execute(pragma)  # type: ignore[attr-defined]

    return engine
