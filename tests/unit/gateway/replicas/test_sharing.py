"""Several replicas' limits: together never above the stated bound, alone the whole of it, whatever is lost."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.gateway.account.budget import Spent
from roost.gateway.account.limits import Limiter
from roost.gateway.errors import ApiError
from roost.gateway.replicas import share
from roost.gateway.replicas.notes import parse_note
from roost.gateway.replicas.sharing import DEAD_S, Sharing
from roost.ops.api_keys import ApiKey, TierLimits

KEY = ApiKey(name="alice", sha256="0" * 64)
SILENT_S = DEAD_S * 0.6


@dataclass
class Fleet:
    """Replicas in one clock; a message is lost or delivered when the test says so."""

    per_minute: int
    tokens: int = 0
    now: float = 1000.0
    sharings: list[Sharing] = field(default_factory=list)
    limiters: list[Limiter] = field(default_factory=list)
    talked: dict[tuple[int, int], float] = field(default_factory=dict)
    admitted: float = 0.0
    admitted_tokens: float = 0.0
    largest: float = 0.0

    def add(self) -> int:
        limits = TierLimits(requests=self.per_minute, tokens=self.tokens)
        limiter = Limiter(lambda _key: limits, lambda _name: Spent(), lambda *_: None, lambda: self.now)
        number = len(self.sharings)
        self.limiters.append(limiter)
        self.sharings.append(Sharing(limiter, f"{number:032x}", lambda: self.now))
        return number

    def tell(self, sender: int, receiver: int, *, arrives: bool = True, answered: bool = True) -> None:
        a, b = self.sharings[sender], self.sharings[receiver]
        written, sent = a.note_for(b.replica)
        note = written.model_dump_json().encode()
        if not arrives:
            return
        b.hear(parse_note(note))
        reply = b.note_for(a.replica)[0].model_dump_json().encode()
        if answered:
            a.hear(parse_note(reply), sent)
            self.talked[sender, receiver] = self.now

    def all_tell(self, among: list[int] | None = None) -> None:
        for a in among or range(len(self.sharings)):
            for b in among or range(len(self.sharings)):
                if a != b:
                    self.tell(a, b)

    def ask(self, at: int, tokens: int = 0) -> bool:
        try:
            self.limiters[at].admit(KEY, tokens * 4)
        except ApiError:
            return False
        self.admitted += 1
        self.admitted_tokens += min(tokens, self.tokens)
        self.largest = max(self.largest, min(tokens, self.tokens))
        return True

    def burst(self, at: int, most: int = 10_000) -> int:
        count = 0
        while count < most and self.ask(at):
            count += 1
        return count

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for sharing in self.sharings:
            sharing.settle()


def fleet(replicas: int, per_minute: int, tokens: int = 0) -> Fleet:
    """Return replicas that know each other."""
    made = Fleet(per_minute, tokens)
    for _ in range(replicas):
        made.add()
    made.all_tell()
    made.all_tell()
    return made


STEP = st.tuples(
    st.sampled_from(["ask", "ask", "ask", "tell", "unanswered", "lost", "wait"]), st.integers(0, 2), st.integers(0, 2)
)


@settings(deadline=None, max_examples=300)
@given(
    st.integers(2, 3),
    st.integers(1, 40),
    st.integers(1, 300),
    st.lists(st.tuples(STEP, st.integers(0, 90)), max_size=120),
)
def test_together_they_never_exceed_the_bound(
    replicas: int, per_minute: int, tokens: int, story: list[tuple[tuple[str, int, int], int]]
) -> None:
    those = fleet(replicas, per_minute, tokens)
    began = those.now
    for (what, a, b), number in story:
        at, to = a % replicas, b % replicas
        if what == "ask":
            those.ask(at, number)
        elif what == "wait":
            those.pass_time(number / 100)
            for (one, other), when in list(those.talked.items()):
                if those.now - when > SILENT_S:  # else they would count as dead
                    those.tell(one, other)
        elif at != to:
            those.tell(at, to, arrives=what != "lost", answered=what == "tell")
        minutes = (those.now - began) / 60
        assert those.admitted <= per_minute * (1 + minutes) + (replicas - 1) + 1e-6
        assert those.admitted_tokens <= tokens * (1 + minutes) + (replicas - 1) * those.largest + 1e-6


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_bursts_at_all_at_once_without_a_word_give_out_the_limit(replicas: int) -> None:
    those = fleet(replicas, 60)
    assert sum(those.burst(at) for at in range(replicas)) == 60


def test_a_client_that_asks_one_replica_only_gets_the_whole_share_by_share() -> None:
    those = fleet(3, 60)
    got = [those.burst(0)]
    for _ in range(12):
        those.tell(0, 1)
        those.tell(0, 2)
        got.append(those.burst(0))
    assert got[0] == 20  # a third of it at once
    assert sum(got) == 60
    those.pass_time(1.0)
    assert those.burst(0) == 1  # and then the whole rate, a request a second


def test_a_debt_of_all_at_once_is_paid_before_anything_else() -> None:
    those = fleet(3, 1)
    assert [those.burst(at) for at in range(3)] == [1, 1, 1]  # the bound: two more than the limit
    those.all_tell()
    for _ in range(119):
        those.pass_time(1.0)
        those.all_tell()
    assert [those.burst(at) for at in range(3)] == [0, 0, 0]
    for _ in range(62):
        those.pass_time(1.0)
        those.all_tell()
    assert those.burst(1) == 1


def test_the_share_of_one_that_died_returns() -> None:
    those = fleet(3, 60)
    assert those.burst(0) == 20
    those.all_tell()
    for _ in range(int(DEAD_S * 4) + 1):  # replica 2 says nothing any more
        those.pass_time(0.25)
        those.all_tell([0, 1])
    assert those.sharings[0].live() == [those.sharings[1].replica]
    those.pass_time(60 - DEAD_S)
    those.all_tell([0, 1])
    assert (those.burst(0), those.burst(1)) == (30, 30)


def test_the_last_one_has_it_all() -> None:
    those = fleet(2, 60)
    those.pass_time(DEAD_S + 0.1)
    assert those.burst(0) == 60


def test_one_that_leaves_has_no_share_at_once() -> None:
    those = fleet(2, 60)
    leaving = those.sharings[1]
    those.sharings[0].hear(leaving.note_for(those.sharings[0].replica, leaving=True)[0])
    assert those.sharings[0].live() == []
    assert those.burst(0) == 60


def test_one_that_comes_anew_learns_what_is_spent() -> None:
    those = fleet(2, 60)
    for at in (0, 1):
        those.burst(at)
    those.pass_time(2.0)
    for _ in range(200):  # they are no longer young
        those.pass_time(1.0)
        those.all_tell()
        those.burst(0)
        those.all_tell()
    new = those.add()
    those.all_tell()
    assert those.burst(new) + those.burst(0) + those.burst(1) <= 2


def test_until_the_others_have_answered_a_new_one_keeps_to_its_share() -> None:
    those = Fleet(60)
    those.add()
    those.sharings[0].expect(["http://127.0.0.1:1", "http://127.0.0.1:2"])
    those.sharings[0].settle()
    assert those.burst(0) == 20
    those.pass_time(DEAD_S + 0.1)  # nobody is there
    assert those.burst(0) > 40


def test_after_a_silence_no_debt_of_an_hour_is_found() -> None:
    those = fleet(2, 60)
    for _ in range(3600):  # each alone, both at the full rate
        those.pass_time(1.0)
        those.burst(0)
        those.burst(1)
    those.all_tell()
    those.pass_time(5.0)
    those.all_tell()
    assert those.burst(0) + those.burst(1) >= 4


def test_impatience_is_known_everywhere() -> None:
    those = fleet(2, 1)
    those.burst(0)
    for _ in range(5):
        those.pass_time(1.1)
        those.ask(0)
    those.all_tell()
    those.pass_time(0.1)
    with pytest.raises(ApiError) as caught:
        those.limiters[1].admit(KEY, 0)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 1
    assert those.limiters[1].counts()["alice"].strikes == those.limiters[0].counts()["alice"].strikes > 0


def test_places_are_shared_and_at_least_one_is_there() -> None:
    assert [share.places(16, 0, 0, replicas) for replicas in (1, 2, 3)] == [16, 8, 5]
    assert share.places(16, 0, 8, 2) == 12  # the others have heard of 8 and use none
    assert share.places(16, 16, 0, 2) == 1
    assert share.places(2, 0, 0, 3) == 1


@pytest.mark.parametrize("text", [b"", b"{}", b'{"replica": "x", "life": "y", "number": 1, "age_s": 1}', b"[1]"])
def test_rubbish_is_no_note(text: bytes) -> None:
    with pytest.raises(ValueError, match="no note of a replica"):
        parse_note(text)
