"""`roost route`: which model `auto` is, and the router that has a part in it: explained, trained, put back."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from roost.cli.access import find_access
from roost.cli.api import Api, Options
from roost.cli.keys import DryRunOption, JsonOption
from roost.cli.show import print_json, print_table
from roost.fleet.nomad_api import NomadClient
from roost.fleet.route_store import FileRouteStore, NomadRouteStore, RouteStore, replace_router
from roost.fleet.route_store import undo as undo_router
from roost.gateway.choice.semantic import SHIPPED, RouterFile, parse_router, shipped
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.site import load_site

app = typer.Typer(no_args_is_help=True)
Json = Any

DEFAULT_EACH = 40
TOKENS_EACH = 60  # of an answer with examples; a longer one says something else
FileOption = Annotated[
    Path | None, typer.Option("--file", help="File of the router (ROOST_ROUTE_FILE of a gateway without Nomad).")
]
ExamplesOption = Annotated[
    list[Path] | None, typer.Option("--examples", help='A file with lines {"text": "…", "subject": "coding"}.')
]
SeedOption = Annotated[int, typer.Option(help="Another seed holds other examples back.")]


def store_of(file: Path | None) -> RouteStore:
    """Return where the router is.

    Raises:
        RoostError: nothing is installed here, or this user may not ask Nomad.
    """
    return FileRouteStore(file) if file else NomadRouteStore(NomadClient.from_site(load_site()))


@app.command("explain")
def explain(
    text: Annotated[str, typer.Argument(help="A request, as a user would write it.")], *, as_json: JsonOption = False
) -> None:
    """Show which of the models that are there `auto` would be for a request, and why. Nothing is answered.

    Example: roost route explain "Write a function that sorts a list"
    """
    with Api(find_access()) as api:
        found: dict[str, Json] = api.post("/roost/v1/explain", {"messages": [{"role": "user", "content": text}]})
    if as_json:
        print_json(found)
        return
    print(f"{found['slot']} ({found['model'] or 'no model yet'}), because: {REASONS[found['reason']]}.\n")
    points = ", ".join(f"{name} {value:+}" for name, value in found["points_for"].items()) or "nothing speaks for more"
    print(f"How hard   {found['level']}, {found['points']} points ({points})")
    guesses = ", ".join(f"{name} {share:.0%}" for name, share in found["probabilities"].items())
    print(f"Subject    {guesses or 'nothing to go by'}{'' if found['sure'] else '; not sure enough to be heeded'}\n")
    print_table(
        ["slot", "model", "strength", "context", "sees", "calls tools", "in question"],
        [
            (c["slot"], c["model"], c["strength"], c["context"], _said(c["sees"]), _said(c["calls"]),
             c["why_not"] or "yes")
            for c in found["candidates"]
        ],
    )  # fmt: skip


REASONS = {
    "only": "there is no other that could",
    "vision": "main cannot see",
    "context": "main's context is too small",
    "tools": "main calls no tools",
    "expert": "it is its subject",
    "light": "a lighter model will do",
    "heavy": "the strongest is wanted",
    "main": "nothing speaks for another",
}


@app.command("log")
def show_log(
    *, limit: Annotated[int, typer.Option(min=1, max=256, help="How many.")] = 20, as_json: JsonOption = False
) -> None:
    """Show the last models that were chosen for `auto`, newest first. What people wrote is not kept.

    Example: roost route log --limit 5
    """
    with Api(find_access()) as api:
        found: list[dict[str, Json]] = api.get(f"/roost/v1/decisions?limit={limit}")["data"]
    if as_json:
        print_json(found)
        return
    print_table(
        ["when", "key", "kind", "chosen", "reason", "level", "subject", "answered by", "status", "cascade"],
        [
            (datetime.fromtimestamp(d["at"], UTC).strftime("%H:%M:%S"), d["key"], d["kind"], d["slot"], d["reason"],
             d["level"], _subject(d), d["answered_by"], d["status"],
             ", ".join(f"{c['model']}: {c['why']}" for c in d["cascade"]))
            for d in found
        ],
    )  # fmt: skip


@app.command("show")
def show(*, file: FileOption = None, as_json: JsonOption = False) -> None:
    """Show the router that is used, how good it is, and whether there is one to go back to.

    Example: roost route show
    """
    routers, _ = store_of(file).load()
    about = {**_router(routers.present).about(), "previous": _router(routers.previous).about()}
    if as_json:
        print_json(about)
        return
    _print_router(_router(routers.present))
    print(f"Before it  {_named(_router(routers.previous))}; `roost route undo` goes back to it")


@app.command("data")
def data(
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write, one example a line.")],
    templates: Annotated[bool, typer.Option(help="Make examples from the templates that come with Roost.")] = True,
    examples: ExamplesOption = None,
    ask: Annotated[
        str, typer.Option(help="Subjects, separated by commas, for which the fleet's own models are asked.")
    ] = "",
    model: Annotated[str, typer.Option(help="The model or slot that is asked.")] = "main",
    each: Annotated[int, typer.Option(min=1, max=1000, help="Examples of each subject asked for.")] = DEFAULT_EACH,
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write examples of what people ask, by whose subject it is; read and correct them before training.

    Example: roost route data --ask coding,law --each 30 --out examples.jsonl
    """
    # here and below: numpy and the examples are read by who trains only
    from roost.gateway.choice.training.asking import MOST_AT_ONCE, ask_for_examples
    from roost.gateway.choice.training.examples import distinct, read_examples, shipped_examples

    found = shipped_examples(seed) if templates else []
    for path in examples or ():
        found += read_examples(path)
    subjects = [word.strip() for word in ask.split(",") if word.strip()]
    if subjects and not dry_run:
        with Api(find_access()) as api:
            options = Options(model=model, max_tokens=TOKENS_EACH * min(MOST_AT_ONCE, each), temperature=0.9)

            def answer(question: str) -> str:
                pieces = api.chat([{"role": "user", "content": question}], options)
                return "".join(piece for piece in pieces if isinstance(piece, str))

            found += ask_for_examples(subjects, each, answer, progress=_tell_asked)
    found = list(distinct(found))
    if not dry_run:
        _write(out, "".join(f"{example.line()}\n" for example in found))
    counts = Counter(example.subject for example in found)
    if as_json:
        print_json({"file": str(out), "examples": len(found), "by_subject": dict(counts), "written": not dry_run})
        return
    said = ", ".join(f"{subject} {count}" for subject, count in sorted(counts.items()))
    print(f"{out}: {len(found)} examples {'would be' if dry_run else 'were'} written ({said or 'none'}).")


@app.command("train")
def train(
    *,
    examples: ExamplesOption = None,
    templates: Annotated[bool, typer.Option(help="Train on the examples that come with Roost, too.")] = True,
    seed: SeedOption = 0,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the router, measure it with examples held back, and use it at once on all gateways; `undo` goes back.

    Subjects are names of slots: what is `law` goes to the slot law, if there is one. Example:
    roost route train --examples examples.jsonl --dry-run
    """
    from roost.gateway.choice.training.examples import distinct, read_examples, shipped_examples
    from roost.gateway.choice.training.fit import train as fit

    store = store_of(file)
    routers, _ = store.load()
    found = shipped_examples(seed) if templates else []
    for path in examples or ():
        found += read_examples(path)
    made = fit(list(distinct(found)), origin="trained here", seed=seed, progress=_tell_epoch)
    if not dry_run:
        replace_router(store, made.text())
    if as_json:
        print_json({**made.about(), "before": _router(routers.present).about(), "applied": not dry_run})
        return
    _print_router(made)
    print(f"Until now  {_named(_router(routers.present))}")
    if dry_run:
        print("Nothing was changed.")
    else:
        print("It is used from now on; `roost route undo` goes back.")


@app.command("undo")
def undo(*, file: FileOption = None, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Go back to the router that was used before; done twice it is as it was.

    Example: roost route undo
    """
    store = store_of(file)
    routers, _ = store.load()
    after = routers.previous if dry_run else undo_router(store).present
    _report(_router(after), dry_run=dry_run, as_json=as_json)


@app.command("reset")
def reset(*, file: FileOption = None, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Go back to the router that comes with Roost; `undo` brings yours back.

    Example: roost route reset
    """
    if not dry_run:
        replace_router(store_of(file), "")
    _report(shipped().file, dry_run=dry_run, as_json=as_json)


def _report(router: RouterFile, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({**router.about(), "applied": not dry_run})
        return
    print(f"{_named(router)} {'would be' if dry_run else 'is'} used.")


def _router(text: str) -> RouterFile:
    try:
        return parse_router(text).file if text.strip() else shipped().file
    except ValueError as error:
        raise RoostError(
            f"The trained router cannot be read: {error}.", fix=f"Run `roost route reset` to go back to {SHIPPED}."
        ) from None


def _named(router: RouterFile) -> str:
    origin = "the one that comes with Roost" if router.origin == "shipped" else f"one {router.origin}, {router.made}"
    right = f", {router.natural.right:.0%} right" if router.natural else ""
    return f"{origin}{right}"


def _print_router(router: RouterFile) -> None:
    print(f"Router     {_named(router)}")
    print(f"Subjects   {', '.join(router.subjects)}")
    print(f"Trained on {router.examples} examples; {router.about()['bytes']} bytes")
    for name, measured in (("Held back", router.held_out), ("Natural", router.natural)):
        if measured:
            shares = ", ".join(f"{subject} {share:.0%}" for subject, share in measured.by_subject.items())
            print(
                f"{name:<10} {measured.examples} examples: {measured.right:.0%} right; sure of {measured.sure:.0%}, "
                f"and of those {measured.right_when_sure:.0%} right ({shares})"
            )


def _said(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _subject(decision: dict[str, Json]) -> str:
    return next((f"{name} {share:.0%}" for name, share in decision["probabilities"].items()), "")


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text)
    except OSError as error:
        raise RoostError(f"{path} cannot be written: {error.strerror}.", fix="Name another file.") from None


def _tell_epoch(epoch: int, of: int, loss: float) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K  epoch {epoch} of {of}, loss {loss:.4f}" + ("\r\x1b[K" if epoch == of else ""))


def _tell_asked(subject: str, count: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K  {subject}: {count} examples")
