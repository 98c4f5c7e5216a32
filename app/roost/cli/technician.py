"""`roost technician`: work that survives: planned, done with tools and checked, each step on disk before the next."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from roost.agent.audit.log import AuditLog
from roost.agent.permission.policy import Answer, answer_of
from roost.agent.technician.api_mind import ApiMind
from roost.agent.technician.job import CallState, Job, Phase, Reply
from roost.agent.technician.journal import Journal
from roost.agent.technician.look import looker
from roost.agent.technician.reach import ELSEWHERE, HubRunner, Reach
from roost.agent.technician.technician import Technician
from roost.agent.technician.workshop import JOBS, Ended, work_until
from roost.agent.tools.runner import LocalRunner
from roost.agent.tools.workspaces import Together, Workspaces
from roost.cli.access import Access
from roost.cli.agent import WORKERS
from roost.cli.api import Api
from roost.cli.principal import identify, refuse_root, technician_folder
from roost.cli.principal import workspaces as no_hubs
from roost.cli.show import json_line, local_time, plain, print_json, print_table
from roost.context.blobs import FileBlobs
from roost.context.budget import CostMode
from roost.context.modes import chosen_mode
from roost.gateway.telemetry import Redactor, configure
from roost.ops.errors import NOT_FOUND, RoostError

app = typer.Typer(no_args_is_help=True)
Json = Any

FAILED, ASKS = 1, 3
PAUSE_S = 0.3
SHOWN_CHARACTERS = 160

JobArgument = Annotated[str, typer.Argument(help="Id of a job; see `roost technician list`.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON; while it works, a line for each thing that happens.")
]


@app.command("start")
def start(
    goal: Annotated[str, typer.Argument(help="What is to be so in the end.")],
    *,
    workspace: Annotated[
        str, typer.Option(help="Folder to work in: its name here, or MACHINE/NAME of a connected worker.")
    ] = "",
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder to work in, by its path: for jobs alone, unless it is a workspace already."),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="A tool that this job may call without asking; may be given several times.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Have a goal worked on until it is reached, given up, or something has to be asked.

    Without --folder and --workspace it works in the only workspace there is, and says so; with several one is named.

    Tools act in the workspace only; programs run in a sandbox. Killed at any point it goes on where it was with
    the next `roost technician start`, `answer` or `resume`. Exit code 0: reached; 1: not reached; 3: it asks something.

    Example: roost technician start 'Add a licence file that says MIT.' --folder ~/projects/site
    """
    with desk() as at:
        if not goal.strip():
            raise RoostError("There is no goal.", fix="roost technician start 'Add a README.'", exit_code=2)
        name = _workspace(at, workspace, folder)
        job = at.journal.add(at.owner, goal.strip(), name, tuple(allow or ()))
        _work(at, [job.id], as_json=as_json)


@app.command("resume")
def resume(*, as_json: JsonOption = False) -> None:
    """Go on with all that is under way: what a killed process, or a restarted machine, left.

    Example: roost technician resume
    """
    with desk() as at:
        _work(
            at, [job.id for job in at.journal.jobs(at.owner) if job.id in set(at.journal.under_way())], as_json=as_json
        )


@app.command("list")
def show_all(*, as_json: JsonOption = False) -> None:
    """List jobs, the latest first.

    Example: roost technician list
    """
    with desk() as at:
        jobs = at.journal.jobs(at.owner)
    if as_json:
        print_json([job.model_dump(mode="json", exclude={"steps"}) for job in jobs])
        return
    print_table(
        ["job", "since", "state", "workspace", "goal"],
        [(job.id, local_time(job.created), job.phase.value, job.workspace or "", _short(job.goal)) for job in jobs],
    )


@app.command("show")
def show(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Show a job with all its steps.

    Example: roost technician show 8f3k2m9q0a1b2c3d
    """
    with desk() as at:
        found = at.journal.job(job, at.owner)
    if as_json:
        print_json(_shown(found))
        return
    print(f"{found.goal}  ({found.id}, since {local_time(found.created)}): {found.phase.value}")
    for number, line in enumerate(found.plan, 1):
        print(plain(f"  {number}. {line}"))
    for step in found.steps:
        result = step.result
        came = f"{result.outcome.value}: {_short(result.text)}" if result else step.state.value
        print(plain(f"→ {step.call.name} {_short(json.dumps(step.call.arguments, ensure_ascii=False))}\n← {came}"))
    for note in found.notes:
        print(plain(f"· missing then: {note}"))
    print(plain(_ending(found)))


@app.command("cancel")
def cancel(job: JobArgument, *, as_json: JsonOption = False) -> None:
    """End a job: a call under way comes to its end, nothing more is called.

    Example: roost technician cancel 8f3k2m9q0a1b2c3d
    """
    with desk() as at:
        found = at.journal.cancel(job, at.owner)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print(plain(_ending(found)))


@app.command("answer")
def answer(
    job: JobArgument,
    question: Annotated[str, typer.Argument(help="Id of the question that you saw; it stands beside it.")],
    reply: Annotated[
        str,
        typer.Argument(
            metavar="yes|conversation|always|no|done|again|stop",
            help="Of a call to be made: yes, conversation (in this job), always, no. Of one interrupted: "
            "done (it was done), again (it was not, do it), stop (give up).",
        ),
    ] = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Say whether a call may be made, or whether an interrupted one was, which nobody else can know; the job goes on.

    An answer is for the question that it names: one that comes late is refused, the job may ask something else by now.

    Example: roost technician answer 8f3k2m9q0a1b2c3d 4be1a90c yes
    """
    if not reply:
        _reply(question)  # a word that is none is told as that
        raise RoostError(
            f"{question} names no question: the job may ask something else by now.",
            fix=f"`roost technician show {job}` has the question and its id; "
            f"then: roost technician answer {job} ID {question}",
            exit_code=2,
        )
    meant = _reply(reply)
    with desk() as at:
        at.journal.reply(job, at.owner, question, meant)
        _work(at, [job], as_json=as_json)


def _reply(word: str) -> Reply | Answer:
    """Return the reply that a word is.

    Raises:
        RoostError: it is none.
    """
    if said := answer_of(word):
        return said
    try:
        return Reply(word)
    except ValueError:
        choices = ", ".join((*Answer, *Reply))
        raise RoostError(
            f"{word!r} is no answer; there are {choices}.", fix="See `roost technician answer --help`.", exit_code=2
        ) from None


@dataclass(frozen=True)
class Desk:
    """What the verbs work with. `folder` is that of this user and key.

    `own` are the folders that were named for jobs; `shared` those that this user's worker gives, too.
    """

    access: Access
    owner: str
    mode: CostMode
    folder: Path
    journal: Journal
    own: Workspaces
    shared: Workspaces

    @property
    def workspaces(self) -> Together:
        """Return all folders that a job may work in."""
        return Together(self.own, self.shared)

    def technician(self) -> tuple[Technician, Ended]:
        """Return who works, and what closes what they worked with."""
        mind = ApiMind(
            self.access.base_url,
            self.access.key,
            self.access.ca,
            FileBlobs(self.folder / "blobs"),
            self.owner,
            self.mode,
        )
        runner = LocalRunner(self.owner, self.workspaces, self.folder / "tools")
        audit = AuditLog(self.folder / "audit", Redactor([self.access.key]))
        hub = HubRunner(self.access.base_url, self.access.key, self.access.ca)

        async def ended() -> None:
            await mind.close()
            await hub.close()

        inspect = looker(self.workspaces, self.owner)
        return Technician(self.journal, mind, Reach(runner, hub), audit, inspect, hub), ended


@contextmanager
def desk() -> Iterator[Desk]:
    """Open the folder of this user and key.

    Raises:
        RoostError: it is root, the API does not answer, or the folder cannot be used.
    """
    refuse_root("The technician does not run as root: tools would have root's rights.")
    whose = identify()
    mode = chosen_mode(str(whose.key.get("cost_mode") or ""), str(whose.key.get("cost_mode_default") or "")).mode
    folder = technician_folder() / whose.called
    try:
        journal = Journal(folder / JOBS)
    except OSError as error:
        raise RoostError(
            f"{folder} cannot be used: {error.strerror}.", fix="Look at the disk and whose it is."
        ) from None
    try:
        own = no_hubs().kept_in(folder / "workspaces.json")
        yield Desk(whose.access, whose.owner, mode, folder, journal, own, whose.workspaces)
    finally:
        journal.close()


def _workspace(at: Desk, name: str, folder: Path | None) -> str:
    """Return the workspace to work in.

    Raises:
        RoostError: there is none of that name, or it has to be said which.
    """
    if folder is not None:
        real = folder.expanduser().resolve()
        known_as = [one.name for one in at.workspaces.of(at.owner) if one.path == real and name in ("", one.name)]
        if known_as:
            return known_as[0]
        if name in [one.name for one in at.shared.of(at.owner)]:
            raise RoostError(f"There is another workspace {name}.", fix="--workspace another", exit_code=2)
        return at.own.add(folder, at.owner, name).name
    known = [one.name for one in at.workspaces.of(at.owner)]
    if not name and len(known) == 1:
        (only,) = at.workspaces.of(at.owner)
        where = plain(f"{only.name} ({only.path})")
        sys.stderr.write(f"Works in {where}, the only workspace; --folder names another.\n")
        return only.name
    if name and name not in known and (given := _given_by_workers(at, name)):
        return given
    if name not in known:
        said = f"There is no workspace {name!r}." if name else "It has to be said where to work."
        code = NOT_FOUND if name else 2
        raise RoostError(said, fix=f"--folder PATH, or --workspace {'|'.join(known) or 'NAME'}.", exit_code=code)
    return name


def _given_by_workers(at: Desk, name: str) -> str:
    """Return `MACHINE/NAME` of a folder that one connected worker gives, by that or by its name alone; '' for none.

    Raises:
        RoostError: more than one machine has a folder of that name.
    """
    try:
        with Api(at.access) as api:
            workers = api.get(WORKERS)["data"]
    except RoostError:  # an API without an agent
        return ""
    places = [f"{one['host']}{ELSEWHERE}{folder['name']}" for one in workers for folder in one["workspaces"]]
    found = [place for place in places if name and name in (place, place.partition(ELSEWHERE)[2])]
    if len(found) > 1:
        raise RoostError(f"More than one machine has {name}.", fix=f"--workspace {'|'.join(found)}", exit_code=2)
    return found[0] if found else ""


@dataclass
class Watched:
    """Tells what happens in jobs since it looked last."""

    tell: Callable[[dict[str, Json], str], None]
    phases: dict[str, Phase] = field(default_factory=dict)
    steps: dict[tuple[str, int], tuple[CallState, int]] = field(default_factory=dict)

    def look(self, job: Job) -> None:
        """Look at a job, tell what is new."""
        for step in job.steps:
            at = (job.id, step.number)
            before, now = self.steps.get(at), (step.state, step.attempts)
            if before == now:
                continue
            if before is None:
                arguments = json.dumps(step.call.arguments, ensure_ascii=False)
                event = {"type": "call", "job": job.id, "step": step.number, "why": step.why, "tool": step.call.name}
                self.tell({**event, "arguments": step.call.arguments}, f"→ {step.call.name} {_short(arguments)}")
            if step.result:
                result = step.result
                event = {"type": "result", "job": job.id, "step": step.number, "outcome": result.outcome.value}
                self.tell({**event, "text": result.text}, f"← {result.outcome.value} {_short(result.text)}")
            self.steps[at] = now
        if self.phases.get(job.id) != job.phase:
            self.phases[job.id] = job.phase
            self.tell({"type": "state", "job": job.id, "state": job.phase.value}, f"· {job.phase.value}")


def _work(at: Desk, jobs: list[str], *, as_json: bool) -> None:
    """Work until these jobs rest; tell what happens meanwhile, and how they ended by the exit code."""
    if not jobs:
        print("[]" if as_json else "Nothing is under way.")
        return
    configure("warning", [at.access.key])  # to standard error: the other one is for what comes of the jobs

    def tell(document: dict[str, Json], line: str) -> None:
        if as_json:
            print(json_line(document), flush=True)
        else:
            sys.stderr.write(f"{plain(line)}\n")

    watched = Watched(tell)
    tell({"type": "begin", "jobs": jobs}, f"{', '.join(jobs)}; Ctrl-C leaves it for `roost technician resume`.")

    def rested() -> bool:
        for job in jobs:
            watched.look(at.journal.job(job))
        return not set(jobs) & set(at.journal.under_way())

    work_until(at.folder, at.journal, at.technician, rested, lambda: time.sleep(PAUSE_S))
    ended = [at.journal.job(job) for job in jobs]
    for job in ended:
        if as_json:
            print(json_line({"type": "job", **_shown(job)}), flush=True)
        else:
            print(plain(_ending(job)))
    if any(job.phase is Phase.ASKING for job in ended):
        raise typer.Exit(ASKS)
    if any(job.phase is not Phase.DONE for job in ended):
        raise typer.Exit(FAILED)


def _shown(job: Job) -> dict[str, Json]:
    """Return a job with its steps for programs; `question_id` is what an answer names."""
    return {**job.model_dump(mode="json"), "question_id": job.question_id}


def _ending(job: Job) -> str:
    """Return how it stands with a job, in a sentence."""
    if job.phase is Phase.ASKING:
        command = f"roost technician answer {job.id} {job.question_id} {'|'.join(job.replies)}"
        return f"It asks: {job.question}\nfix: {command}"
    words = {Phase.DONE: "Reached", Phase.FAILED: "Not reached", Phase.CANCELLED: "Cancelled"}
    if job.phase in words:
        return f"{words[job.phase]}: {job.answer}"
    return f"Under way ({job.phase.value}); it goes on with `roost technician resume`."


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"
