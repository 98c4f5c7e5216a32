"""A conversation as models are shown it: turns as they were said, and topics that stand for turns before them.

All of it is plain data that goes into the session as JSON and comes back the same: what was summarised once is not
summarised again after a restart. The turns themselves stay in the session's file; `turns:3-9` refers to them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from roost.context.messages import Message, Role

TURNS = "turns:"
TOPIC = "topic:"
SHORT_RANGES = 3
MOST_TURNS = 100_000
"""A reference may come from a model: it is not taken at its word about how much there is."""


class Turn(BaseModel):
    """What the user said and all that came of it: answers, calls, results. The last one may still go on."""

    model_config = ConfigDict(frozen=True)

    number: int = Field(ge=1)
    messages: tuple[Message, ...]

    @property
    def size(self) -> int:
        """Return how many bytes it holds."""
        return sum(message.size for message in self.messages)

    @property
    def request(self) -> str:
        """Return what the user said in it."""
        return "\n".join(message.text for message in self.messages if message.role is Role.USER)

    def text(self) -> str:
        """Return it as a text to be summarised or searched, with who said what."""
        lines = []
        for message in self.messages:
            if message.text.strip():
                lines.append(f"{message.role.value}: {message.text.strip()}")
            lines += [f"{message.role.value} called {call.name} {call.arguments}" for call in message.calls]
        return "\n".join(lines)


class Topic(BaseModel):
    """Turns of which only a summary is shown; of a higher level: topics that are shown as one.

    `level` 0 stands for turns. `terms` are the words that tell it from others, with their weight, for those of level 0.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    level: int = Field(ge=0)
    turns: tuple[int, ...]
    summary: str
    terms: dict[str, float] = {}

    @property
    def reference(self) -> str:
        """Return how to ask for its turns: by their numbers where these are few words, else by its own name."""
        return reference(self.turns) if len(ranges(self.turns)) <= SHORT_RANGES else TOPIC + self.id

    def shown(self) -> str:
        """Return what a model reads: the summary, marked as one, with the way to the whole."""
        return f"[Summary of {self.reference}] {self.summary}"


class Compaction(BaseModel):
    """One compaction, as it is kept in the session: which turns went, which topics came, which are shown now."""

    model_config = ConfigDict(frozen=True)

    turns: tuple[int, ...]
    topics: tuple[Topic, ...]
    shown: tuple[str, ...]


class Conversation(BaseModel):
    """A conversation: topics for what is not shown any more, then the turns that no topic stands for.

    `shown` are the topics that stand for all that came before the turns, oldest first. `folded` are those that became
    part of one of them, so that they are still found.
    """

    model_config = ConfigDict(frozen=True)

    shown: tuple[Topic, ...] = ()
    folded: tuple[Topic, ...] = ()
    turns: tuple[Turn, ...] = ()
    carried: str = ""
    """What a session that was rolled over knows of the one before it."""

    def topics(self) -> tuple[Topic, ...]:
        """Return all topics there ever were."""
        return (*self.folded, *self.shown)

    def leaves(self) -> tuple[Topic, ...]:
        """Return the topics that stand for turns, shown or not."""
        return tuple(topic for topic in self.topics() if topic.level == 0)

    def after(self, compaction: Compaction) -> Conversation:
        """Return it as a compaction left it; so a session's records give the same conversation again."""
        gone = set(compaction.turns)
        known = {topic.id: topic for topic in (*self.shown, *compaction.topics)}
        shown = tuple(known.pop(name) for name in compaction.shown)
        return self.model_copy(
            update={
                "shown": shown,
                "folded": (*self.folded, *known.values()),
                "turns": tuple(turn for turn in self.turns if turn.number not in gone),
            }
        )

    def referred(self, text: str) -> tuple[int, ...]:
        """Return the numbers of the turns that `turns:3-5,9` or `topic:4` refers to.

        Raises:
            ValueError: it refers to no turns of this conversation.
        """
        if not text.startswith(TOPIC):
            return numbers_of(text)
        for topic in self.topics():
            if topic.id == text.removeprefix(TOPIC):
                return topic.turns
        raise ValueError(f"{text!r} is no topic of this conversation")

    @property
    def size(self) -> int:
        """Return how many bytes its turns and the summaries that are shown hold."""
        texts = [self.carried, *(topic.summary for topic in self.shown)]
        return sum(turn.size for turn in self.turns) + sum(len(text.encode("utf-8", "replace")) for text in texts)

    @property
    def last_number(self) -> int:
        """Return the number of the latest turn, 0 if there is none."""
        if self.turns:
            return self.turns[-1].number
        return max((max(topic.turns) for topic in self.shown), default=0)

    def begin(self, *messages: Message) -> Conversation:
        """Return it with a new turn."""
        turn = Turn(number=self.last_number + 1, messages=messages)
        return self.model_copy(update={"turns": (*self.turns, turn)})

    def go_on(self, *messages: Message) -> Conversation:
        """Return it with more messages in its last turn.

        Raises:
            ValueError: there is no turn.
        """
        if not self.turns:
            raise ValueError("there is no turn to go on with")
        last = self.turns[-1]
        longer = last.model_copy(update={"messages": (*last.messages, *messages)})
        return self.model_copy(update={"turns": (*self.turns[:-1], longer)})


def reference(numbers: Iterable[int]) -> str:
    """Return how turns are referred to: `turns:3-5,9`."""
    return TURNS + ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges(numbers))


def numbers_of(text: str) -> tuple[int, ...]:
    """Return the numbers of `turns:3-5,9`.

    Raises:
        ValueError: it is no such reference, or to more turns than any conversation has.
    """
    if not text.startswith(TURNS):
        raise ValueError(f"{text!r} refers to no turns")
    found: list[int] = []
    for part in text.removeprefix(TURNS).split(","):
        first, _, last = part.partition("-")
        begin, end = int(first), int(last or first)
        if len(found) + end - begin >= MOST_TURNS:
            raise ValueError(f"{text!r} refers to too many turns")
        found += range(begin, end + 1)
    return tuple(found)


def ranges(numbers: Iterable[int]) -> Sequence[tuple[int, int]]:
    """Return numbers as runs without gaps, lowest first."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
