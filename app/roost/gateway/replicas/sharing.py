"""What a replica knows of the others, and what its limits follow from that: no network here."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from roost.gateway.account.limits import NOTHING, Count, Limiter
from roost.gateway.replicas.notes import Note, said

log = structlog.get_logger(__name__)

DEAD_S = 3.0  # a replica that was not heard for so long has no share any more
YOUNG_S = 60.0  # what a process took since it began lies in the buckets still, if it began so lately
FORGET_S = 3600.0

Counts = Mapping[str, Count]


@dataclass
class _Other:
    """Another replica: what it said last, what it has heard of us, and up to which version it knows whose usage."""

    life: str
    age_s: float
    number: int = -1
    at: float = 0.0
    leaving: bool = False
    whole: bool = False  # all its counts were heard once, so that a new name is one it had not used before
    counts: dict[str, Count] = field(default_factory=dict)
    heard: dict[str, Count] = field(default_factory=dict)
    have: dict[str, int] = field(default_factory=dict)
    uses: dict[str, float] = field(default_factory=dict)  # by job when its model was used; infinite: just now


class Sharing:
    """One object a service; only its event loop touches it. `replica` names this one's account of usage."""

    def __init__(
        self,
        limiter: Limiter,
        replica: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        uses_of: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Share `limiter`'s limits, and tell when models were used: `uses_of` gives the seconds since, by job."""
        self.replica = replica
        self.life = uuid.uuid4().hex
        self._limiter = limiter
        self._clock = clock
        self._uses_of = uses_of
        self._began = clock()
        self._number = 0
        self._others: dict[str, _Other] = {}
        self._unanswered: frozenset[str] = frozenset()

    # --- To send --------------------------------------------------------------------------------------------------

    def note_for(self, replica: str, *, leaving: bool = False) -> tuple[Note, dict[str, Count]]:
        """Return the next note for a replica, and the counts in it: what it has not heard. "" is one not known yet."""
        other = self._others.get(replica)
        known = other.heard if other else {}
        mine = self._limiter.counts()
        counts = {name: count for name, count in mine.items() if _news(count, known.get(name, NOTHING))}
        self._number += 1
        note = Note(
            replica=self.replica,
            life=self.life,
            number=self._number,
            age_s=self._clock() - self._began,
            counts={name: said(count) for name, count in counts.items()},
            whole=not known,
            uses=dict(self._uses_of()),
            leaving=leaving,
        )
        return note, counts

    def have(self, replica: str) -> Mapping[str, int] | None:
        """Return up to which versions a replica knows usage, or None if it never said so."""
        other = self._others.get(replica)
        return other.have if other else None

    # --- What comes -----------------------------------------------------------------------------------------------

    def is_self(self, note: Note) -> bool:
        """Say whether this process itself has written a note: a list of replicas may name it, too."""
        if note.replica == self.replica and note.life != self.life:
            log.error("replica_twice", replica=note.replica, fix="two gateways have copies of one state folder")
            return True
        return note.life == self.life

    def hear(self, note: Note, sent: Counts | None = None) -> None:
        """Take what another replica says. `sent` is what the note that it answers told it."""
        now = self._clock()
        other = self._others.get(note.replica)
        if other is not None and other.life == note.life and note.number <= other.number:
            if sent is not None:  # a newer one overtook it; it has heard us all the same
                other.heard |= sent
                self.settle()
            return
        counts = {name: each.count() for name, each in note.counts.items()}
        fresh = other is None or other.life != note.life
        if other is None or other.life != note.life:
            other = self._others[note.replica] = _Other(note.life, note.age_s, at=now)
        young = note.age_s <= YOUNG_S
        silent = now - other.at > DEAD_S
        levels: dict[str, Count] = {}
        for name, count in counts.items():
            before = other.counts.get(name)
            if silent or (before is None and not (other.whole or young)):
                levels[name] = count  # its sums began long ago: only its levels say what is in the buckets still
            else:
                before = before or NOTHING
                self._limiter.hear(name, count.requests - before.requests, count.tokens - before.tokens)
        self._adopt(levels, sent)
        other.whole = other.whole or note.whole or (fresh and young)
        for name, count in counts.items():
            if count.strikes:
                self._limiter.hear_strikes(name, count.strikes, count.blocked_s)
        other.counts |= counts
        other.number, other.at, other.age_s, other.leaving = note.number, now, note.age_s, note.leaving
        other.have = dict(note.have)
        other.uses = {job: now - age if age else math.inf for job, age in note.uses.items()}
        if sent is not None:
            other.heard |= sent
        self.settle()

    def _adopt(self, counts: Counts, sent: Counts | None) -> None:
        if not counts:
            return
        young = self._clock() - self._began < YOUNG_S
        mine = self._limiter.counts()
        for name, count in counts.items():
            own, told = mine.get(name, NOTHING), (sent or {}).get(name, NOTHING)
            unknown = (own.requests - told.requests, own.tokens - told.tokens) if young else (0.0, 0.0)
            self._limiter.adopt(name, count, unknown_there=unknown)

    def expect(self, unanswered: Collection[str]) -> None:
        """Note the addresses of replicas that are said to be there and have not answered yet."""
        self._unanswered = frozenset(unanswered)

    def settle(self) -> None:
        """Have the limits follow from who lives and what they have heard; to be called when time has passed, too."""
        now = self._clock()
        for name in [name for name, other in self._others.items() if now - other.at > FORGET_S]:
            del self._others[name]
        live = self.live()
        # At a start others may be there and just not have answered: until that is known they have their share.
        expected = len(self._unanswered) if now - self._began < DEAD_S else 0
        heard: dict[str, Count] | None = None
        if expected:
            heard = {}
        elif live:
            heard = _least([self._others[name].heard for name in live])
        elsewhere: dict[str, int] = {}
        for name in live:
            for key, count in self._others[name].counts.items():
                elsewhere[key] = elsewhere.get(key, 0) + count.running
        self._limiter.share_with(1 + len(live) + expected, heard, elsewhere)

    def used_elsewhere(self, job: str) -> float | None:
        """Return how many seconds ago another replica used a job's model, 0 while it does; None if none ever did."""
        live = set(self.live())
        ages: list[float] = []
        for name, other in self._others.items():
            if (at := other.uses.get(job)) is not None:
                # Whoever is silent uses nothing any more.
                ages.append(max(0.0, self._clock() - (at if name in live else min(at, other.at))))
        return min(ages, default=None)

    def live(self) -> list[str]:
        """Return the other replicas that were heard lately and are not leaving."""
        now = self._clock()
        return [name for name, other in self._others.items() if now - other.at <= DEAD_S and not other.leaving]

    def seen(self) -> list[dict[str, object]]:
        """Return what is shown of the other replicas."""
        now = self._clock()
        live = set(self.live())
        return [
            {
                "replica": name,
                "state": "live" if name in live else "leaving" if other.leaving else "lost",
                "heard_s": round(now - other.at, 3),
                "age_s": round(other.age_s, 1),
            }
            for name, other in sorted(self._others.items())
        ]


def _news(count: Count, known: Count) -> bool:
    return (count.requests, count.tokens, count.running, count.strikes) != (
        known.requests,
        known.tokens,
        known.running,
        known.strikes,
    )


def _least(heard: Collection[Counts]) -> dict[str, Count]:
    """Return what all have heard: of each key the least."""
    first, *rest = heard
    found = dict(first)
    for counts in rest:
        for name in list(found):
            a, b = found[name], counts.get(name, NOTHING)
            found[name] = Count(
                min(a.requests, b.requests), min(a.tokens, b.tokens), min(a.running, b.running), 0.0, 0.0
            )
    return found
