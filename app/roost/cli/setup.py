"""`roost setup`: what this machine can serve, chosen with its user, written down, fetched and started."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from roost.cli.setup_apply import Journal, Keyboard, SetupStoppedError, fetch, play, stoppable
from roost.cli.setup_machine import Machine, file_of, look, need_root
from roost.cli.setup_talk import Talk, confirm, show_machine, show_proposal
from roost.cli.show import print_json, size
from roost.fleet.artifacts.from_site import release_dir
from roost.fleet.setup import VARIABLE, Proposal, parse_asked, slot_entries
from roost.ops import kept_file
from roost.ops.errors import RoostError
from roost.ops.host_file import merge
from roost.ops.kept_file import Change

USAGE = 2


def setup(
    *,
    slot: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SLOT=MODEL[:QUANT]",
            help="Serve this model in a slot; =auto has one chosen, =none takes the slot out, =/FILE.gguf serves a "
            "file. May be repeated.",
        ),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(metavar="[SLOT=]TOKENS", help="Context of one request, of all slots or of one; may be repeated."),
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Choose again where this machine's file names a model.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: take what is proposed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")] = False,
    no_apply: Annotated[
        bool, typer.Option("--no-apply", help="Only write the file; ./bootstrap.sh fetches and starts it later.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Put back the file as it was before the last set-up.")] = False,
    host: Annotated[
        str, typer.Option(metavar="NAME", help="A host of a fleet's inventory instead of this machine.")
    ] = "",
    inventory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The inventory; host_vars/NAME.yaml in it is written.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; needs --yes or --dry-run.")] = False,
) -> None:
    """Choose models that run well on this machine, write that down, fetch and start them.

    Shows what was found, proposes a model for each slot with the reason, memory, download and licence, and asks before
    it changes anything. It may be stopped at any point and then says what was done. Ends with an answer of the model.
    Exit codes: 0 done, 1 failed, 2 wrong usage, 4 only root may do it, 130 stopped.

    Example: sudo roost setup --yes --slot main=auto --context 8192
    """
    if bool(host) != (inventory is not None):
        raise RoostError("--host and --inventory belong together.", fix="Give both, or none.", exit_code=USAGE)
    how = How(yes=yes, dry_run=dry_run, apply=not no_apply and inventory is None, as_json=as_json)
    if how.asks and (as_json or not _has_terminal()):
        raise RoostError(
            "There is nobody to ask: this is no terminal, or the output is JSON. Nothing was changed.",
            fix="--yes takes what is proposed, --dry-run only shows it.", exit_code=USAGE,
        )  # fmt: skip
    asked = parse_asked(slot or [], context or [], anew=anew)
    journal = Journal()
    with stoppable(journal) as keyboard:
        if not dry_run:
            need_root(file_of(host, inventory))
        if undo:
            _undo(file_of(host, inventory), how, keyboard)
        else:
            _set_up(look(asked, host=host, inventory=inventory, quiet=as_json), how, journal, keyboard)


@dataclass(frozen=True)
class How:
    """What the options say of how it is done. `apply`: what was chosen is fetched and started."""

    yes: bool
    dry_run: bool
    apply: bool
    as_json: bool

    @property
    def asks(self) -> bool:
        """Say whether the user is asked."""
        return not (self.yes or self.dry_run)


def _set_up(machine: Machine, how: How, journal: Journal, keyboard: Keyboard) -> None:
    proposal = _decide(machine, how, keyboard)
    entries = slot_entries(proposal, machine.catalogue)
    change = Change(machine.file, machine.text, merge(machine.text, {VARIABLE: entries}, machine.file))
    steps = _steps(proposal, change, how)
    if not how.as_json:
        _show_change(change)
    if how.dry_run:
        would = f"Would {_listed(steps)}. Nothing was changed." if steps else "Nothing would be changed."
        _end(machine, proposal, change, journal, how, would)
        return
    if how.asks and steps and not confirm(f"Now {_listed(steps)}?", keyboard):
        raise SetupStoppedError
    if how.apply:
        fetch(machine, proposal, journal, quiet=how.as_json)
    if change:
        kept_file.apply(change)
        journal.written = change.path
    if how.apply:
        journal.applying = True
        play(release_dir(), quiet=how.as_json)
        journal.applying, journal.applied = False, True
    _end(machine, proposal, change, journal, how, _last_words(machine, change, how))


def _decide(machine: Machine, how: How, keyboard: Keyboard) -> Proposal:
    """Return what is to be done, by the plan or by the user.

    Raises:
        RoostError: it is not possible as it was asked for.
    """
    proposal = machine.propose(machine.slots, machine.optional)
    if not how.as_json:
        show_machine(machine)
    if how.asks:
        return Talk(machine, proposal, keyboard).run()
    if not how.as_json:
        show_proposal(proposal)
    if proposal.refused:
        reasons = "; ".join(f"{refused.slot}: {refused.reason}" for refused in proposal.refused)
        raise RoostError(f"Not possible as asked: {reasons}. Nothing was changed.", fix=proposal.refused[0].remedy)
    return proposal


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _show_change(change: Change) -> None:
    print()
    if not change:
        print(f"{change.path} says this already.")
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in change.diff().splitlines():
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else ""
        console.print(line, style=style, markup=False)


def _steps(proposal: Proposal, change: Change, how: How) -> list[str]:
    """Return what will be done, in order."""
    unknown = any(offer.download is None for offer in proposal.offers)
    steps = []
    if how.apply and (proposal.download or unknown):
        steps.append("fetch the models" if unknown else f"fetch {size(proposal.download)}")
    if change:
        steps.append(f"write {change.path}")
    if how.apply:
        steps.append("start what is not running as it should")
    return steps


def _listed(steps: list[str]) -> str:
    return " and ".join([*([", ".join(steps[:-1])] if steps[:-1] else []), steps[-1]])


def _last_words(machine: Machine, change: Change, how: How) -> str:
    name = "roost setup" if machine.is_here else f"roost setup --host {machine.name} --inventory {machine.inventory}"
    undo = f"`{name} --undo` puts the previous {change.path.name} back." if change else ""
    if how.apply:
        return undo
    return f"Nothing was fetched or started; {machine.apply_command} does that. {undo}".strip()


def _end(machine: Machine, proposal: Proposal, change: Change, journal: Journal, how: How, words: str) -> None:
    """Say how it ended."""
    if not how.as_json:
        if words:
            print(f"\n{words}")
        return
    print_json({
        "host": machine.name,
        "tier": asdict(machine.tier),
        "offers": [asdict(offer) for offer in proposal.offers],
        "explanation": list(proposal.explanation),
        "left_out": machine.left_out,
        "file": str(change.path),
        "diff": change.diff(),
        "fetched": journal.fetched,
        "written": journal.written is not None,
        "applied": journal.applied,
        "answer": machine.answer() if journal.applied else None,
    })  # fmt: skip


def _undo(path: Path, how: How, keyboard: Keyboard) -> None:
    """Put the previous file back, after a look at the difference."""
    change = kept_file.undo_change(path)
    if not how.as_json:
        _show_change(change)
    if how.asks and not confirm(f"Put {path} back like this?", keyboard):
        raise SetupStoppedError
    if not how.dry_run:
        kept_file.undo(change)
    if how.as_json:
        print_json({"file": str(path), "diff": change.diff(), "written": not how.dry_run})
    elif how.dry_run:
        print("\nNothing was changed.")
    else:
        print(f"\n{path} is as it was. What runs is as before; ./bootstrap.sh, or the playbook, makes it follow.")
