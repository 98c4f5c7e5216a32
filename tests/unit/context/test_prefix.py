"""The guard of the cacheable prefix: what may differ between two requests, and what needs a reason."""

from __future__ import annotations

import pytest

from roost.context.events import Kind
from roost.context.messages import Call, Message, assistant, system, tool, user
from roost.context.prefix import PrefixBrokenError, PrefixGuard

HEAD = system("You are Main.")
STEP = (assistant("", Call(id="a", name="read")), tool("a", "text"))


def second(first: list[Message], then: list[Message], tails: tuple[str, str] = ("", "")) -> PrefixGuard:
    """Return a guard that saw two requests."""
    guard = PrefixGuard(strict=True)
    guard.check("me", first, (), tail=tails[0])
    guard.check("me", then, (), tail=tails[1])
    return guard


def test_a_prompt_that_grows_breaks_nothing() -> None:
    assert second([HEAD, user("a")], [HEAD, user("a"), *STEP, assistant("b"), user("c")]).broken == []


def test_a_tail_may_go_once_a_turn_has_begun() -> None:
    first = [HEAD, user("a\n\nIt is noon.")]
    then = [HEAD, user("a"), assistant("b"), user("c\n\nIt is one.")]
    assert second(first, then, ("It is noon.", "It is one.")).broken == []


def test_a_tail_may_differ_where_nothing_stands_behind_it() -> None:
    first, then = [HEAD, user("a\n\nnoon")], [HEAD, user("a\n\none"), *STEP]
    assert second(first, then, ("noon", "one")).broken == []


def test_words_of_the_tail_that_somebody_said_are_no_tail() -> None:
    told = user("[What was said before] The note is 6.")
    first = [HEAD, told, assistant("I know."), user("a\n\nThe note is 6.")]
    then = [HEAD, told, assistant("I know."), user("a"), assistant("b"), user("c\n\nThe note is 7.")]
    assert second(first, then, ("The note is 6.", "The note is 7.")).broken == []


@pytest.mark.parametrize(
    ("first", "then", "tails"),
    [
        ([HEAD, user("a")], [system("You are someone else."), user("a")], ("", "")),
        ([HEAD, user("a"), assistant("b")], [HEAD, user("a"), user("c")], ("", "")),
        ([HEAD, user("a")], [HEAD], ("", "")),
        ([HEAD, user("a\n\nnoon"), *STEP], [HEAD, user("a\n\none"), *STEP, *STEP], ("noon", "one")),
    ],
)
def test_what_changes_earlier_needs_a_reason(first: list[Message], then: list[Message], tails: tuple[str, str]) -> None:
    with pytest.raises(PrefixBrokenError):
        second(first, then, tails)
    guard = PrefixGuard()
    guard.check("me", first, (), tail=tails[0])
    event = guard.check("me", then, (), tail=tails[1])
    assert event is not None
    assert event.kind is Kind.PREFIX_BROKEN
    assert guard.broken == [event]


def test_a_stated_reason_is_an_event_and_no_fault() -> None:
    guard = PrefixGuard(strict=True)
    guard.check("me", [HEAD, user("a")], ())
    event = guard.check("me", [HEAD, user("b")], (), reason="compaction")
    assert event is not None
    assert event.detail["reason"] == "compaction"
    assert guard.broken == []


def test_other_schemas_break_everything() -> None:
    guard = PrefixGuard()
    guard.check("me", [HEAD], ({"name": "read"},))
    event = guard.check("me", [HEAD], ({"name": "write"},))
    assert event is not None
    assert event.detail["same"] == -1


def test_conversations_are_apart() -> None:
    guard = PrefixGuard(strict=True)
    guard.check("me", [user("a")], ())
    assert guard.check("you", [user("b")], ()) is None
    guard.forget("me")
    assert guard.check("me", [user("b")], ()) is None
