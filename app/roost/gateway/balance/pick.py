"""Which endpoint a request goes to: the least work, and the least to read again. Pure.

Work is counted in tokens to be generated. A token of a prompt that is not in the endpoint's cache costs a fraction of
one, since prompts are read in batches. As in SGLang's router and llm-d's scorers load and prefix are weighed against
each other, so that affinity never piles up work: an endpoint without a free slot gets nothing while another has one,
unless waiting for it is shorter than reading the conversation again elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

READING = 0.125  # what a token of a prompt costs, against one of the answer
SHARING = 0.5  # how much requests side by side slow each other down, against one after the other


class Why(StrEnum):
    """Why an endpoint was chosen; also why none was."""

    ONLY = "only"  # no other one could have had it
    PREFIX = "prefix"  # it holds the conversation
    SESSION = "session"  # it served the session last
    LEAST_WORK = "least-work"
    RETRY = "retry"  # those that were tried failed
    FULL = "full"
    WORTH_WAITING = "worth-waiting"  # the one that holds the conversation is about to be free


@dataclass(frozen=True)
class Candidate:
    """An endpoint for one request. Tokens: `work` is what it still has to do, `match` what it need not read.

    `slots` None: it does not say how many requests it takes at a time. `shared` is how much of the prompt it has in
    common with some other conversation, `held` how many conversations it holds. `session`: it served this session last.
    `resting`: its circuit breaker is open. `tried`: it has failed this request.
    """

    id: str
    slots: int | None = None
    running: int = 0
    work: float = 0.0
    match: int = 0
    shared: int = 0
    held: int = 0
    session: bool = False
    tried: bool = False
    resting: bool = False

    @property
    def free(self) -> bool:
        """Say whether it would begin at once."""
        return self.slots is None or self.running < max(1, self.slots)


@dataclass(frozen=True)
class Picked:
    """The endpoint, or None with the reason why the request has to wait."""

    id: str | None
    why: Why


def pick(candidates: Collection[Candidate], prompt: int, *, may_wait: bool = True) -> Picked:
    """Choose for a request with a prompt of `prompt` tokens; `may_wait`: for one that is better than a free one.

    Endpoints that failed the request, and those whose breaker is open, are taken only where nothing else is left:
    refusing what might succeed helps nobody, and the retry budget keeps a sick fleet from being hammered.
    """
    pool = _prefer(_prefer(candidates, lambda one: not one.resting), lambda one: not one.tried)
    free = [one for one in pool if one.free]
    if not free:
        return Picked(None, Why.FULL)
    best = min(free, key=lambda one: (cost(one, prompt), one.held / (one.slots or 1), -one.shared, one.id))
    if may_wait:
        warm = [one for one in pool if not one.free and one.match]
        if any(cost(one, prompt) + _wait(one) < cost(best, prompt) for one in warm):
            return Picked(None, Why.WORTH_WAITING)
    return Picked(best.id, _reason(best, pool, candidates, prompt))


def cost(one: Candidate, prompt: int) -> float:
    """Return what a request would cost there: being slowed down by the work that is there, and reading its prompt."""
    return SHARING * one.work / (one.slots or 1) + READING * max(0, prompt - one.match)


def _wait(one: Candidate) -> float:
    """Return about how many tokens pass until the first of the requests there ends.

    Of N that began at any time the first to end has 2 / (N + 1) of the mean left.
    """
    running = max(1, one.running)
    return one.work / running * 2 / (running + 1)


def _prefer(pool: Collection[Candidate], good: Callable[[Candidate], bool]) -> Collection[Candidate]:
    return [one for one in pool if good(one)] or pool


def _reason(best: Candidate, pool: Collection[Candidate], every: Collection[Candidate], prompt: int) -> Why:
    if any(one.tried for one in every):
        return Why.RETRY
    if len(every) == 1:
        return Why.ONLY
    without = [one for one in pool if one is not best and one.free]
    if best.match and (not without or cost(best, prompt) < min(cost(one, prompt) for one in without)):
        return Why.SESSION if best.session else Why.PREFIX
    return Why.LEAST_WORK
