"""The conversation of `roost setup`: what was found, what is proposed, and what the user wants otherwise."""

from __future__ import annotations

from collections.abc import Collection
from typing import TextIO

from rich.console import Console
from rich.prompt import Confirm, Prompt
from rich.text import TextType

from roost.cli.hosts import rows
from roost.cli.setup_apply import Keyboard
from roost.cli.setup_machine import Machine, Option
from roost.cli.show import print_table, size
from roost.fleet.setup import Asked, Offer, Proposal, wished_slots
from roost.models.footprint import HOST
from roost.models.model_slots import ModelSlot
from roost.ops.errors import RoostError

ACCEPT, ADD, QUIT = "accept", "add", "quit"
MODEL, CONTEXT, SKIP, BACK = "model", "context", "skip", "back"
ORIGINS = {"header": "predicted", "oracle": "the engine's own figure", "measured": "measured here"}


def show_machine(machine: Machine) -> None:
    """Print what was found."""
    print_table(
        [f"machine {machine.name}", ""], [*rows(machine.facts, machine.tier, machine.bandwidth), *hub_row(machine)]
    )


def hub_row(machine: Machine) -> list[tuple[str, str]]:
    """Return what is said of the model hub."""
    return [("model hub", machine.hub_words)] if machine.hub_words else []


def show_proposal(proposal: Proposal) -> None:
    """Print what is proposed, with the reasons, and what is not possible."""
    print()
    print_table(
        ["slot", "model", "context", "memory", "download", "licence"],
        [
            (o.slot, o.model, o.context_size, memory_words(o), download_words(o), o.licence)
            for o in proposal.offers
        ],
    )  # fmt: skip
    for offer in proposal.offers:
        print(f"  {offer.slot}: {offer.title}; {offer.reason}")
    for refused in proposal.refused:
        print(f"  {refused.slot}: not possible: {refused.reason}. {refused.remedy}")


def memory_words(offer: Offer) -> str:
    """Return the memory by device, with where the figure is from."""
    parts = [size(count) if device == HOST else f"{device} {size(count)}" for device, count in offer.memory]
    return f"{' + '.join(parts)}, {ORIGINS.get(offer.origin, offer.origin)}"


def download_words(offer: Offer) -> str:
    """Return what has to be fetched."""
    if offer.download is None:
        return "the hub knows"
    return size(offer.download) if offer.download else "is here"


def option_row(number: int, option: Option) -> tuple[object, ...]:
    """Return the row of another model that could be taken, or the reason why not."""
    offer = option.offer
    if offer is None:
        return (number, option.model, f"not possible: {option.problem}", "", "", "")
    return (number, option.model, memory_words(offer), offer.context_size, download_words(offer), offer.licence)


class Questions(Console):
    """Where questions are asked: rich's prompts shown in it take their answers from the keyboard."""

    def __init__(self, keyboard: Keyboard) -> None:
        """Ask at this keyboard."""
        super().__init__(highlight=False, soft_wrap=True)
        self._keyboard = keyboard

    def input(
        self,
        prompt: TextType = "",
        *,
        markup: bool = True,
        emoji: bool = True,
        password: bool = False,
        stream: TextIO | None = None,
    ) -> str:
        """Show the question and return the answer; nothing here asks for a password."""
        _ = (password, stream)
        self.print(prompt, markup=markup, emoji=emoji, end="")
        self.file.flush()
        return self._keyboard.line()


def confirm(question: str, keyboard: Keyboard) -> bool:
    """Ask for a yes; nothing typed is one."""
    print()
    return Confirm.ask(question, default=True, console=Questions(keyboard))


class Talk:
    """Asks until the user takes the proposal.

    Leaving is a KeyboardInterrupt, as Ctrl-C is, and the end of the input an EOFError.
    """

    def __init__(self, machine: Machine, proposal: Proposal, keyboard: Keyboard) -> None:
        """Begin with what is proposed."""
        self._machine = machine
        self._questions = Questions(keyboard)
        self._proposal = proposal
        self._slots = list(proposal.slots)
        self._optional = machine.optional

    def run(self) -> Proposal:
        """Return the proposal as the user wants it."""
        show_proposal(self._proposal)
        while True:
            names = [slot.slot for slot in self._slots]
            can_accept = not self._proposal.refused and bool(self._proposal.offers)
            choices = [*([ACCEPT] if can_accept else []), *names, ADD, QUIT]
            print()
            answer = self._ask("Accept, or change a slot", choices, ACCEPT if can_accept else names[0])
            if answer == ACCEPT:
                return self._proposal
            if answer == QUIT:
                raise KeyboardInterrupt
            if answer == ADD:
                self._add()
            else:
                self._change(answer)

    def _change(self, name: str) -> None:
        answer = self._ask(f"{name}: change what", [MODEL, CONTEXT, SKIP, BACK], BACK)
        slot = next(slot for slot in self._slots if slot.slot == name)
        if answer == MODEL:
            self._choose_model(slot)
        elif answer == CONTEXT:
            self._choose_context(slot)
        elif answer == SKIP:
            self._take({name: None}, {})

    def _choose_model(self, slot: ModelSlot) -> None:
        options = self._machine.options(slot, self._slots, self._optional)
        heads = ["", "model", "memory", "context", "download", "licence"]
        print_table(heads, [option_row(number, option) for number, option in enumerate(options, 1)])
        answer = self._text("A number, NAME[:QUANT], /FILE.gguf, or nothing to go back")
        if not answer:
            return
        if answer.isdigit():
            if not 0 < int(answer) <= len(options):
                print(f"There is no number {answer}.")
                return
            answer = options[int(answer) - 1].model
        self._take({slot.slot: answer}, {})

    def _choose_context(self, slot: ModelSlot) -> None:
        offer = self._proposal.offer(slot.slot)
        present = str(offer.context_size) if offer else "0"
        answer = self._text("Tokens of one request (0: as many as fit)", present)
        if not answer.isdigit():
            print(f"{answer!r} is not a number.")
            return
        self._take({}, {slot.slot: int(answer)})

    def _add(self) -> None:
        name = self._text("Name of the slot, e.g. coding, embedding, vision")
        if name:
            self._take({name: ""}, {})

    def _take(self, models: dict[str, str | None], contexts: dict[str, int]) -> None:
        """Plan again with a change; one that is not possible is said, and all stays as it was."""
        try:
            slots, _ = wished_slots(self._slots, self._machine.defaults, (), Asked(models, contexts))
            optional: Collection[str] = self._optional - set(models)
            proposal = self._machine.propose(slots, optional)
        except RoostError as error:
            print(f"{error.message} {error.fix}")
            return
        worse = [r for r in proposal.refused if r.slot not in {x.slot for x in self._proposal.refused}]
        if worse:
            for refused in worse:
                print(f"{refused.slot}: not possible: {refused.reason}. {refused.remedy}")
            print("All stays as it was.")
            return
        self._slots, self._optional, self._proposal = list(slots), frozenset(optional), proposal
        show_proposal(proposal)

    def _ask(self, question: str, choices: list[str], default: str) -> str:
        return Prompt.ask(question, choices=choices, default=default, console=self._questions)

    def _text(self, question: str, default: str = "") -> str:
        """Ask for anything."""
        shown = bool(default)
        return Prompt.ask(question, default=default, show_default=shown, console=self._questions).strip()
