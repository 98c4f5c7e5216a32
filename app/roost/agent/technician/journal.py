"""Jobs on disk: one SQLite database. Each method is one transaction; several processes may write."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection, Row

from roost.agent.permission.policy import Answer
from roost.agent.sessions.records import now
from roost.agent.sessions.store import new_id
from roost.agent.technician.job import CallState, Job, Phase, Reply, Step
from roost.agent.tool import ToolCall, ToolResult
from roost.durable.database import open_database
from roost.ops.errors import NOT_FOUND, RoostError

MIGRATIONS = (
    """
    CREATE TABLE job (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, goal TEXT NOT NULL, workspace TEXT, phase TEXT NOT NULL,
        plan TEXT NOT NULL DEFAULT '[]', notes TEXT NOT NULL DEFAULT '[]', question TEXT NOT NULL DEFAULT '',
        reply TEXT, answer TEXT NOT NULL DEFAULT '', created TEXT NOT NULL, updated TEXT NOT NULL
    ) STRICT;
    CREATE INDEX job_owner ON job (owner, created);
    CREATE TABLE step (
        job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE, number INTEGER NOT NULL, why TEXT NOT NULL,
        call TEXT NOT NULL, state TEXT NOT NULL, result TEXT, PRIMARY KEY (job, number)
    ) STRICT
    """,
    "ALTER TABLE step ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN allowed TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE step ADD COLUMN mark TEXT NOT NULL DEFAULT ''",
)


SETTERS = {
    "phase": "UPDATE job SET phase = ? WHERE id = ?",
    "plan": "UPDATE job SET plan = ? WHERE id = ?",
    "notes": "UPDATE job SET notes = ? WHERE id = ?",
    "question": "UPDATE job SET question = ? WHERE id = ?",
    "reply": "UPDATE job SET reply = ? WHERE id = ?",
    "answer": "UPDATE job SET answer = ? WHERE id = ?",
    "allowed": "UPDATE job SET allowed = ? WHERE id = ?",
}


class JobNotFoundError(RoostError):
    """There is no such job, or it is another key's: both look the same."""

    def __init__(self, job: str) -> None:
        super().__init__(f"There is no job {job!r}.", fix="See `roost technician list`.", exit_code=NOT_FOUND)


class Journal:
    """The database. May be used by several threads."""

    def __init__(self, path: Path) -> None:
        self._db = open_database(path, MIGRATIONS)
        self._db.row_factory = Row
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def add(self, owner: str, goal: str, workspace: str | None, allowed: Sequence[str] = ()) -> Job:
        """Begin a job; tools that are `allowed` are not asked about in it."""
        job, at = new_id(), now().isoformat()
        with self._change() as db:
            db.execute(
                "INSERT INTO job (id, owner, goal, workspace, phase, created, updated, allowed) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (job, owner, goal, workspace, Phase.PLANNING.value, at, at, json.dumps(list(allowed))),
            )
        return self.job(job)

    def job(self, job: str, owner: str | None = None) -> Job:
        """Return a job with its steps; of one owner, if it is named.

        Raises:
            JobNotFoundError: there is none, or it is another's.
        """
        with self._lock:
            return _found(self._db, job, owner)

    def jobs(self, owner: str) -> list[Job]:
        """Return an owner's jobs without their steps, the latest first."""
        with self._lock:
            rows = self._db.execute("SELECT * FROM job WHERE owner = ? ORDER BY created DESC, id", (owner,)).fetchall()
        return [_job(row, []) for row in rows]

    def under_way(self) -> list[str]:
        """Return the ids of jobs that neither are over nor wait for anybody: one that was answered goes on."""
        with self._lock:
            rows = self._db.execute("SELECT id, phase, reply FROM job").fetchall()
        return [
            row["id"] for row in rows
            if not Phase(row["phase"]).over and (row["phase"] != Phase.ASKING or row["reply"] is not None)
        ]  # fmt: skip

    def planned(self, job: str, plan: list[str]) -> None:
        """Note the plan; acting is next."""
        self._set(job, phase=Phase.ACTING.value, plan=json.dumps(plan))

    def intend(self, job: str, why: str, call: ToolCall) -> None:
        """Note a call that will be made."""
        with self._change() as db:
            number = db.execute("SELECT count(*) FROM step WHERE job = ?", (job,)).fetchone()[0] + 1
            db.execute(
                "INSERT INTO step (job, number, why, call, state) VALUES (?, ?, ?, ?, ?)",
                (job, number, why, call.model_dump_json(), CallState.INTENDED.value),
            )
            _touch(db, job)

    def call_again(self, job: str, number: int, call: ToolCall, mark: str | None = None) -> None:
        """Note that a step's call will be made, for the first time or once more, under the id of `call`.

        `mark` is of what it was allowed as; it stays where none is given.
        """
        with self._change() as db:
            db.execute(
                "UPDATE step SET call = ?, state = ?, mark = coalesce(?, mark) WHERE job = ? AND number = ?",
                (call.model_dump_json(), CallState.INTENDED.value, mark, job, number),
            )
            _resume(db, job)

    def started(self, job: str, number: int) -> None:
        """Note that a call is handed over now."""
        with self._change() as db:
            db.execute(
                "UPDATE step SET state = ?, attempts = attempts + 1 WHERE job = ? AND number = ?",
                (CallState.STARTED.value, job, number),
            )
            _touch(db, job)

    def ended(self, job: str, number: int, result: ToolResult) -> None:
        """Note the outcome of a call; acting goes on."""
        with self._change() as db:
            db.execute(
                "UPDATE step SET state = ?, result = ? WHERE job = ? AND number = ?",
                (CallState.ENDED.value, result.model_dump_json(), job, number),
            )
            _resume(db, job)

    def ask(self, job: str, question: str) -> None:
        """Have the job wait for the user."""
        self._set(job, phase=Phase.ASKING.value, question=question, reply=None)

    def ask_whether(self, job: str, number: int, call: ToolCall, question: str, mark: str) -> None:
        """Have the job wait for the user before a step's call; `mark` is of what the question is about."""
        with self._change() as db:
            db.execute(
                "UPDATE step SET call = ?, mark = ? WHERE job = ? AND number = ?",
                (call.model_dump_json(), mark, job, number),
            )
            db.execute(
                "UPDATE job SET phase = ?, question = ?, reply = NULL WHERE id = ? AND phase = ?",
                (Phase.ASKING.value, question, job, Phase.ACTING.value),
            )
            _touch(db, job)

    def allow(self, job: Job, mark: str) -> None:
        """Note that calls with this mark are not asked about any more in a job."""
        self._set(job.id, allowed=json.dumps(sorted({*job.allowed, mark})))

    def reply(self, job: str, owner: str, question: str, reply: Reply | Answer) -> Job:
        """Note what the user said to a question, by its id: a late answer is none to the next one.

        Raises:
            JobNotFoundError: there is no such job of that owner.
            RoostError: that is not asked now, was answered already, or that is no answer to it.
        """
        see = f"See `roost technician show {job}`."
        with self._change() as db:
            found = _found(db, job, owner)
            if found.phase != Phase.ASKING:
                raise RoostError(f"The job {job} asks nothing: it is {found.phase}.", fix=see)
            if question != found.question_id:
                raise RoostError(f"The job {job} does not ask {question} now, but {found.question_id}.", fix=see)
            if found.reply is not None:
                raise RoostError(
                    f"The question {question} was answered with {found.reply} already.",
                    fix="`roost technician resume` goes on with it.",
                )
            if reply not in found.replies:
                choices = ", ".join(found.replies)
                raise RoostError(f"{reply.value} is no answer to that; there are {choices}.", fix=see, exit_code=2)
            db.execute(SETTERS["reply"], (reply.value, job))
            _touch(db, job)
        return self.job(job)

    def reflect(self, job: str, answer: str) -> None:
        """Note what the job says that it achieved; reflecting is next."""
        self._set(job, phase=Phase.REFLECTING.value, answer=answer)

    def go_on(self, job: str, notes: tuple[str, ...]) -> None:
        """Note what is still missing; acting is next."""
        self._set(job, phase=Phase.ACTING.value, notes=json.dumps(notes))

    def end(self, job: str, phase: Phase, answer: str) -> None:
        """Note how the job ended."""
        self._set(job, phase=phase.value, answer=answer, question="")

    def cancel(self, job: str, owner: str) -> Job:
        """End a job unless it is over.

        Raises:
            JobNotFoundError: there is no such job of that owner.
        """
        if not self.job(job, owner).phase.over:
            self.end(job, Phase.CANCELLED, "Cancelled by the user.")
        return self.job(job)

    def _set(self, job: str, **values: str | None) -> None:
        with self._change() as db:
            over = db.execute("SELECT phase FROM job WHERE id = ?", (job,)).fetchone()
            if over and Phase(over["phase"]).over:
                return  # cancelled meanwhile: it stays so
            for name, value in values.items():
                db.execute(SETTERS[name], (value, job))
            _touch(db, job)

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _found(db: Connection, job: str, owner: str | None) -> Job:
    """Return a job with its steps. Raises JobNotFoundError."""
    row = db.execute("SELECT * FROM job WHERE id = ?", (job,)).fetchone()
    if row is None or (owner is not None and row["owner"] != owner):
        raise JobNotFoundError(job)
    steps = db.execute("SELECT * FROM step WHERE job = ? ORDER BY number", (job,)).fetchall()
    return _job(row, [_step(step) for step in steps])


def _touch(db: Connection, job: str) -> None:
    db.execute("UPDATE job SET updated = ? WHERE id = ?", (now().isoformat(), job))


def _resume(db: Connection, job: str) -> None:
    """Have an asking job act again; one that was cancelled meanwhile stays so."""
    db.execute(
        "UPDATE job SET phase = ?, question = '', reply = NULL WHERE id = ? AND phase = ?",
        (Phase.ACTING.value, job, Phase.ASKING.value),
    )
    _touch(db, job)


def _job(row: Row, steps: list[Step]) -> Job:
    known = {**dict(row), "plan": json.loads(row["plan"]), "notes": json.loads(row["notes"]), "steps": steps,
             "allowed": json.loads(row["allowed"])}  # fmt: skip
    return Job.model_validate(known)


def _step(row: Row) -> Step:
    return Step(
        number=row["number"], why=row["why"], call=ToolCall.model_validate_json(row["call"]),
        state=CallState(row["state"]), attempts=row["attempts"], mark=row["mark"],
        result=ToolResult.model_validate_json(row["result"]) if row["result"] else None,
    )  # fmt: skip
