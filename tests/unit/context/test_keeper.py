"""A conversation kept within its bounds: held to the mode at every append, to the slot's context in every prompt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from roost.context.blobs import MemoryBlobs
from roost.context.budget import CostMode
from roost.context.capabilities import Capabilities
from roost.context.compaction import Sizes, to_fold, turns_due
from roost.context.conversation import Conversation, Turn
from roost.context.events import ContextEvent, Kind
from roost.context.keeper import Keeper, MemoryArchive, Slot, replayed
from roost.context.messages import Call, assistant, tool, user
from roost.context.pack import Head
from roost.context.prefix import PrefixGuard
from roost.context.summarise import Extractive, SummariserError
from roost.context.tokens import Estimate

SUBJECTS = ("bread oven flour", "whales ocean song", "nomad jobs cluster", "rust borrow compiler", "garden tomato soil")


class Watched:
    """A summariser that notes how much it was given in each step."""

    def __init__(self, context_tokens: int, *, fails: bool = False) -> None:
        self._inner = Extractive(Estimate(), context_tokens)
        self._fails = fails
        self.context_tokens = context_tokens
        self.steps: list[int] = []

    async def summarise(self, text: str, tokens: int) -> str:
        """Summarise, or fail if it is to."""
        self.steps.append(Estimate().of(text) + tokens)
        if self._fails:
            raise SummariserError("It is not there.")
        return await self._inner.summarise(text, tokens)


class Table:
    """Everything around one keeper."""

    def __init__(self, context: int, mode: CostMode = CostMode.SMART, *, fails: bool = False) -> None:
        self.mode = mode
        self.summariser = Watched(context, fails=fails)
        self.archive = MemoryArchive()
        self.blobs = MemoryBlobs()
        self.guard = PrefixGuard(strict=True)
        self.events: list[ContextEvent] = []
        self.keeper = Keeper(
            owner="me",
            slot=Slot(context, Estimate(), Capabilities(), 128),
            mode=lambda: self.mode,
            head=Head("You are Main."),
            blobs=self.blobs,
            summariser=self.summariser,
            archive=self.archive,
            guard=self.guard,
        )

    async def turn(self, question: str, answer: str, results: Sequence[str] = (), tail: str = "") -> int:
        """Play one turn; return the tokens of its largest prompt."""
        keeper = self.keeper
        self.events += await keeper.begin(user(question))
        most = 0
        for number, result in enumerate(results):
            pack, events = await keeper.pack(tail)
            self.events += events
            most = max(most, pack.tokens)
            call = Call(id=f"c{keeper.conversation.last_number}x{number}", name="read")
            self.events += await keeper.append(assistant("", call), tool(call.id, result))
        pack, events = await keeper.pack(tail)
        self.events += events
        self.events += await keeper.append(assistant(answer))
        self.archive.keep(keeper.conversation.turns)
        known = {number for topic in keeper.conversation.shown for number in topic.turns}
        known |= {turn.number for turn in keeper.conversation.turns}
        if not keeper.conversation.carried:
            assert known == set(range(1, keeper.conversation.last_number + 1)), "each turn is shown or summarised"
        assert question in "\n".join(message.text for message in pack.messages), "what is asked now is always there"
        return max(most, pack.tokens)

    def kinds(self) -> set[Kind]:
        """Return what happened."""
        return {event.kind for event in self.events}


def chatter(number: int, words: int) -> str:
    """Return a text about the subject of a number, the same each time."""
    vocabulary = [*SUBJECTS[number % len(SUBJECTS)].split(), "then", "soon", str(number)]
    picked = [vocabulary[(number * 31 + at * at) % len(vocabulary)] for at in range(words)]
    return ". ".join(" ".join(picked[at : at + 8]) for at in range(0, words, 8))


async def long_session(table: Table, context: int, times: int) -> tuple[int, int]:
    """Talk until `times` the context has been said; return tokens said and those of the largest prompt."""
    said = largest = number = 0
    while said < times * context:
        question, answer = chatter(number, 40) or "Go", chatter(number + 1, 160)
        results = [chatter(number, 400)] if number % 3 == 0 else []
        largest = max(largest, await table.turn(f"{number}: {question}", answer, results, tail=f"Now: {number}."))
        said += sum(Estimate().of(text) for text in (question, answer, *results))
        number += 1
    return said, largest


@pytest.mark.parametrize("fails", [False, True])
async def test_a_session_of_many_times_the_context_still_answers(fails: bool) -> None:
    context = 1024
    table = Table(context, fails=fails)
    said, largest = await long_session(table, context, 100)
    assert said >= 100 * context
    assert largest <= 0.9 * context
    assert max(table.summariser.steps) <= 0.7 * context
    assert Kind.COMPACTED in table.kinds()
    assert Kind.ESCALATED not in table.kinds()
    assert table.guard.broken == []
    assert len(table.keeper.conversation.shown) < 12, "summaries of summaries, not a list that grows"


async def test_a_session_that_outgrows_fast_rolls_over_and_says_so() -> None:
    table = Table(32_768, CostMode.FAST)
    for number in range(30):
        await table.turn(f"Question {number}", "Answer", ["x" * 4000 for _ in range(6)])
    rolled = [event for event in table.events if event.kind is Kind.ROLLED_OVER]
    assert rolled
    assert rolled[0].visible
    assert table.keeper.session_bytes < 500_000
    assert table.keeper.bounds.uncompacted_turns == 5
    assert len(table.keeper.conversation.turns) <= 5


async def test_another_mode_changes_every_bound_at_once() -> None:
    table = Table(65_536, CostMode.SMART)
    for number in range(12):
        await table.turn(f"Question {number}", "Answer", ["word " * 1500])
    assert len(table.keeper.conversation.turns) == 12
    assert Kind.GATED not in table.kinds()
    table.mode = CostMode.FAST
    await table.turn("And now?", "Answer", ["word " * 1500])
    assert len(table.keeper.conversation.turns) <= 5
    assert {Kind.MODE_CHANGED, Kind.COMPACTED, Kind.GATED} <= table.kinds()
    assert table.guard.broken == []


async def test_a_message_that_no_prompt_holds_comes_in_shortened_visibly() -> None:
    table = Table(2048)
    whole = "\n".join(f"entry {number}" for number in range(20_000))
    events = await table.keeper.begin(user(whole))
    assert [event.kind for event in events] == [Kind.ESCALATED]
    assert events[0].visible
    assert table.blobs.get("me", str(events[0].detail["reference"])).decode() == whole
    pack, _ = await table.keeper.pack()
    assert pack.tokens <= 0.9 * 2048


async def test_the_active_topic_is_recalled_as_it_was_said() -> None:
    table = Table(2048)
    await table.turn("The oven password for bread is xyzzy42", "Noted.")
    for number in range(40):
        await table.turn(f"{number}: {chatter(5 * number + 1, 30)}", chatter(5 * number + 1, 60))
    assert all("xyzzy42" not in turn.text() for turn in table.keeper.conversation.turns)
    await table.keeper.begin(user("What is the oven password for bread?"))
    pack, _ = await table.keeper.pack()
    assert "xyzzy42" in pack.messages[-1].text


async def test_a_restart_brings_the_same_conversation_back() -> None:
    table = Table(1024)
    for number in range(80):
        await table.turn(f"{number}: {chatter(number, 30)}", chatter(number, 60))
    again = Conversation()
    for event in table.events:
        again = replayed(again, event)
    kept = Conversation.model_validate_json(table.keeper.conversation.model_dump_json())
    assert kept == table.keeper.conversation
    assert again.topics() == kept.topics()
    assert again.shown == kept.shown
    assert kept.folded, "there were enough of them to be summarised once more"


def test_what_is_due_is_the_oldest_and_leaves_the_latest() -> None:
    limits = Table(4096, CostMode.FAST).keeper.bounds
    assert turns_due(Sizes((10,) * 5, 100), limits) == 0
    assert turns_due(Sizes((10,) * 6, 100), limits) == 3
    assert turns_due(Sizes((1000, 1000, 1000), 100), limits) == 0
    assert turns_due(Sizes((2000, 2000, 2000), 100), limits) == 2, (
        "only the turn under way fits, and it too must be cut"
    )
    assert turns_due(Sizes((2000, 2000, 100, 100, 100), 100), limits) == 2


def test_folding_takes_the_lowest_level_that_has_several() -> None:
    assert to_fold([2, 1, 0, 0, 0]) == (2, 5)
    assert to_fold([2, 1, 1, 0]) == (1, 3)
    assert to_fold([2, 1, 0]) == (1, 3)
    assert to_fold([1]) is None


def test_a_turn_refers_to_itself() -> None:
    talk = Conversation(turns=(Turn(number=7, messages=(user("x"),)),))
    assert talk.referred("turns:7-9,12") == (7, 8, 9, 12)
    with pytest.raises(ValueError, match="too many"):
        talk.referred("turns:1-999999999999")
    with pytest.raises(ValueError, match="no topic"):
        talk.referred("topic:1")
