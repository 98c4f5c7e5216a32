"""`roost verify`: does the model answer? Asked by the playbook at its end, and by whoever wants to know."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from roost.cli.access import find_access
from roost.cli.api import Api, Ended, Options
from roost.hosts.accept import EXPECT, MAX_TOKENS, QUESTION, SYSTEM
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0


@dataclass(frozen=True)
class Report:
    """What was asked and answered. `seconds` counts from the request to the last token, waiting not included."""

    question: str
    answer: str
    model: str
    tokens: int
    tokens_per_s: float | None
    seconds: float
    ok: bool


def verify(
    *,
    question: Annotated[str, typer.Option(help="What to ask.")] = QUESTION,
    expect: Annotated[
        str, typer.Option(help="Words the answer must hold; upper and lower case are the same.")
    ] = EXPECT,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for a model server and its answer.")] = 120.0,
    model: Annotated[str, typer.Option(help="A model or slot.")] = "auto",
    report: Annotated[Path | None, typer.Option(help="Also write the result to this file, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask the model a question and check its answer. Waits until a model server is ready.

    Ends with 0 if the answer holds the expected words, else with 1.

    Example: roost verify --question 'What is the capital of Italy?' --expect Rome
    """
    with Api(find_access()) as api:
        deadline = time.monotonic() + timeout
        wait_until_ready(api, deadline)
        result = ask(api, question, expect, Options(model, MAX_TOKENS, temperature=0.0), deadline)
    if report is not None:
        write_atomic(report, json.dumps(asdict(result), ensure_ascii=False) + "\n")
    if as_json:
        print(json.dumps(asdict(result), ensure_ascii=False))
    else:
        print(f"{result.question}\n{result.answer}")
        rate = f", {result.tokens_per_s:.1f} tokens/s" if result.tokens_per_s else ""
        sys.stderr.write(f"({result.model}: {result.tokens} tokens{rate}, {result.seconds:.1f} s)\n")
    if not result.ok:
        raise RoostError(
            f"The answer does not hold {expect!r}: {result.answer.strip()!r}.",
            fix="Ask something simpler, or choose a stronger model in model_slots.",
        )


def wait_until_ready(
    api: Api,
    deadline: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Ask `/readyz`, less and less often, until a model server is ready or the clock reaches `deadline`.

    Raises:
        RoostError: none became ready in time; says what is missing.
    """
    wait = FIRST_WAIT_S
    while not (seen := api.readiness()).ready:
        left = deadline - clock()
        if left <= 0:
            raise _not_ready(seen.reasons, reachable=seen.reachable)
        pause(min(wait, left))
        wait = min(2 * wait, LONGEST_WAIT_S)


def ask(api: Api, question: str, expect: str, options: Options, deadline: float) -> Report:
    """Ask once and judge the answer.

    Raises:
        RoostError: there is no answer, or it takes longer than the deadline allows.
    """
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    began = time.monotonic()
    pieces: list[str] = []
    ended: Ended | None = None
    for piece in api.chat(messages, options):
        if isinstance(piece, Ended):
            ended = piece
        else:
            pieces.append(piece)
        if time.monotonic() > deadline:
            raise RoostError(
                f"The answer took too long; so far: {''.join(pieces)!r}.",
                fix="Give it more time with --timeout, or choose a smaller model.",
            )
    answer = "".join(pieces)
    return Report(
        question=question,
        answer=answer,
        model=ended.model if ended else "",
        tokens=ended.tokens if ended else len(pieces),
        tokens_per_s=round(ended.tokens_per_s, 2) if ended and ended.tokens_per_s else None,
        seconds=round(time.monotonic() - began, 3),
        ok=expect.casefold() in answer.casefold(),
    )


def _not_ready(reasons: tuple[str, ...], *, reachable: bool) -> RoostError:
    said = "; ".join(reasons) or "no reason given"
    if not reachable:
        return RoostError(f"The agent does not answer: {said}.", fix="Look at `roost logs agent` and `roost doctor`.")
    slot = reasons[0].partition(":")[0] if reasons and ":" in reasons[0] else "main"
    return RoostError(f"The model server is not ready: {said}.", fix=f"Look at `roost logs {slot}` and `roost doctor`.")
