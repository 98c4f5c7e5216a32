"""A conversation as models are shown it: turns as they were said, and topics that stand for turns before them.

All of it is plain data that goes into the session as JSON and comes back the same: what was summarised once is not
summarised again after a restart. The turns themselves stay in the session's file; `turns:3-9` refers to them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from roost.context.messages import Message, Role

TURNS = "turns:"


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
    """Turns, or topics of the level below, of which only a summary is shown.

    `level` 0 stands for turns. `terms` are the words that tell it from others, with their weight.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    level: int = Field(ge=0)
    turns: tuple[int, ...]
    summary: str
    terms: dict[str, float] = {}

    @property
    def reference(self) -> str:
        """Return how to ask for its turns."""
        return reference(self.turns)

    def shown(self) -> str:
        """Return what a model reads: the summary, marked as one, with the way to the whole."""
        return f"[Summary of {self.reference}] {self.summary}"


class Conversation(BaseModel):
    """A conversation: topics, oldest first, then the turns that no topic stands for."""

    model_config = ConfigDict(frozen=True)

    topics: tuple[Topic, ...] = ()
    turns: tuple[Turn, ...] = ()
    carried: str = ""
    """What a session that was rolled over knows of the one before it."""

    @property
    def size(self) -> int:
        """Return how many bytes its turns and summaries hold."""
        said = sum(turn.size for turn in self.turns)
        return said + sum(len(t.summary.encode()) for t in self.topics) + len(self.carried.encode("utf-8", "replace"))

    @property
    def last_number(self) -> int:
        """Return the number of the latest turn, 0 if there is none."""
        if self.turns:
            return self.turns[-1].number
        return max((max(topic.turns) for topic in self.topics), default=0)

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
        ValueError: it is no such reference.
    """
    if not text.startswith(TURNS):
        raise ValueError(f"{text!r} refers to no turns")
    found: list[int] = []
    for part in text.removeprefix(TURNS).split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
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
