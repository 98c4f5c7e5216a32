"""What is wrong with models and their files. Pure: from what was seen of the models that slots need to findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from roost.hosts.findings import Finding, NotChecked
from roost.models.memory import TOLERANCE
from roost.models.room import SPARE_BYTES

MIB = 1 << 20
AGAIN = "Run `roost models verify`, then ./bootstrap.sh."
Lock = Literal["not needed", "fits", "missing", "other"]


@dataclass(frozen=True)
class PlannedFile:
    """A file that a slot's server opens. `name` is its name in the lock file, `NAME:QUANT` say.

    `state` says what lies at its place, empty where nobody knows yet which file is meant. `lock`: whether the lock file
    has an entry that is for it; `other`: it has one for something else. `only_hub`: nothing but a hub has it.
    """

    slot: str
    name: str
    path: str = ""
    state: str = ""
    bytes: int = 0
    lock: Lock = "not needed"
    only_hub: bool = False


@dataclass(frozen=True)
class MemoryFigure:
    """What slots need of a device, in bytes.

    Of one server: what it was planned with, and measured (None: not compared). Of all that share the device, their
    names in `slot`: what is planned, and what is there.
    """

    slot: str
    device: str
    estimated: int
    measured: int | None = None
    there: int | None = None


@dataclass(frozen=True)
class ModelsSeen:
    """What was seen. `free_bytes` of the models' disk, None: not looked at. `problems`: slots whose model is no entry.

    `hub_problem` is None while no hub was asked, empty if it answers.
    """

    files: Sequence[PlannedFile] = ()
    memory: Sequence[MemoryFigure] = ()
    free_bytes: int | None = None
    hub_problem: str | None = None
    problems: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # slot -> what, fix


def model_findings(seen: ModelsSeen) -> list[Finding]:
    """Return what is wrong."""
    return [*_unknown(seen), *_files(seen), *_locks(seen), *_room(seen), *_hub(seen), *_memory(seen)]


def models_not_checked(seen: ModelsSeen) -> list[NotChecked]:
    """Return what was not looked at."""
    found = []
    if seen.hub_problem is None:
        needed = any(_is_missing(file) and file.only_hub for file in seen.files)
        why = "it was not asked" if needed else "no file is wanted of it"
        found.append(NotChecked("whether a model hub answers", why))
    if seen.free_bytes is None and any(_is_missing(file) for file in seen.files):
        found.append(NotChecked("room for models that are missing", "their disk could not be looked at"))
    unmeasured = sorted({m.slot for m in seen.memory if m.there is None and m.measured is None})
    if unmeasured:
        found.append(
            NotChecked(f"memory in use against the estimate of {', '.join(unmeasured)}", "nothing is measured")
        )
    return found


def _is_missing(file: PlannedFile) -> bool:
    return file.state in {"", "missing"}


def _unknown(seen: ModelsSeen) -> Iterator[Finding]:
    for slot, (what, fix) in seen.problems.items():
        yield Finding(f"model-of:{slot}", "error", f"The slot {slot}: {what}", "Its model server cannot be made.", fix)


def _files(seen: ModelsSeen) -> Iterator[Finding]:
    for file in {f.name: f for f in seen.files}.values():
        if not file.state:
            yield Finding(
                f"model:{file.name}", "error", f"Size and hash of {file.name} are not known yet, so it is not here.",
                "The slot is planned with it, and a file that nobody has named is not taken.",
                f"Run `sudo roost models pull {file.name.partition(':')[0]}`, then ./bootstrap.sh.",
            )  # fmt: skip
        elif file.state == "missing":
            yield Finding(
                f"model:{file.name}", "error", f"The file of {file.name} is missing.",
                f"{file.path} is what its model server reads.", "Run ./bootstrap.sh; it fetches it.",
            )  # fmt: skip
        elif file.state != "verified":
            yield Finding(
                f"model:{file.name}", "error", f"The file of {file.name} is not right: {file.state}.",
                f"{file.path} is what its model server reads; its answers may be nonsense.", AGAIN,
            )  # fmt: skip


def _locks(seen: ModelsSeen) -> Iterator[Finding]:
    for file in {f.name: f for f in seen.files}.values():
        if file.lock == "other":
            yield Finding(
                f"lock:{file.name}", "warning",
                f"models.lock.yaml has another file of {file.name} than the catalogue.",
                "The catalogue was changed since it was locked; the next run asks the hub which file is meant.",
                f"If the change is meant, remove the entry {file.name} of models.lock.yaml and run "
                f"`sudo roost models pull {file.name}`.",
            )  # fmt: skip


def _room(seen: ModelsSeen) -> Iterator[Finding]:
    wanted = {f.path: f.bytes for f in seen.files if f.state == "missing"}
    needed = sum(wanted.values()) + SPARE_BYTES
    if wanted and seen.free_bytes is not None and seen.free_bytes < needed:
        yield Finding(
            "models-room", "error",
            f"The planned models need {needed // MIB} MiB on their disk, {seen.free_bytes // MIB} MiB are free.",
            "They cannot be fetched.",
            f"Free {-(-(needed - seen.free_bytes) // MIB)} MiB (`roost models gc` lists what no slot needs), or choose "
            "smaller ones: roost setup.",
        )  # fmt: skip


def _hub(seen: ModelsSeen) -> Iterator[Finding]:
    waiting = sorted({f.name for f in seen.files if _is_missing(f) and f.only_hub})
    if waiting and seen.hub_problem:
        yield Finding(
            "hub", "error", f"No model hub answers: {seen.hub_problem}",
            f"Only a hub has {', '.join(waiting)}.",
            "Let this machine reach it (proxy, HF_ENDPOINT), fetch from another node (`roost models pull --from URL`), "
            "or choose what needs none: roost setup.",
        )  # fmt: skip


def _memory(seen: ModelsSeen) -> Iterator[Finding]:
    for figure in seen.memory:
        where = "the machine's memory" if figure.device == "CPU" else figure.device
        if figure.there is not None and figure.estimated > figure.there:
            yield Finding(
                f"memory:{figure.slot}:{figure.device}", "error",
                f"What is planned for {figure.slot} needs {figure.estimated // MIB} MiB of {where}, "
                f"{figure.there // MIB} MiB may be planned with.",
                "A server is killed for lack of memory, or does not start.",
                "Choose smaller models or contexts: roost setup.",
            )  # fmt: skip
        if figure.measured is not None and figure.measured > figure.estimated * (1 + TOLERANCE):
            over = 100 * (figure.measured - figure.estimated) / max(1, figure.estimated)
            yield Finding(
                f"measured:{figure.slot}:{figure.device}", "warning",
                f"The server of {figure.slot} took {figure.measured // MIB} MiB of {where}, {over:.1f} % more than "
                f"the {figure.estimated // MIB} MiB it was planned with.",
                "What was planned beside it may not fit.",
                "Run ./bootstrap.sh: it plans with what was measured.",
            )  # fmt: skip
