"""Chooses for `auto` by the present state of the registry, and takes down what was chosen and why. One a service."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from roost.gateway.choice.candidates import Candidate, candidates, sifted, stronger
from roost.gateway.choice.cascade import Cascade, plan
from roost.gateway.choice.complexity import score
from roost.gateway.choice.decide import NO_GUESS, Decision, Guess, Reason, able, decide, seen
from roost.gateway.choice.features import Asked, Features, read_request
from roost.gateway.choice.ring import Decided, Ring
from roost.gateway.choice.verdict import wanted_of
from roost.gateway.metrics import Metrics
from roost.gateway.names import is_auto, meaning
from roost.gateway.registry import Registry
from roost.gateway.request.requests import ParsedRequest
from roost.gateway.routing import MAIN_SLOT, visible_to
from roost.ops.api_keys import ApiKey

log = structlog.get_logger(__name__)


class Router(Protocol):
    """Says whose subject a text is."""

    def guess(self, text: str) -> Guess:
        """Return how likely each subject is."""
        ...


@dataclass(frozen=True)
class Policy:
    """What the site wants. `chooses` False: `auto` is the slot main, always. `ladder`: see `candidates`.

    `cascade_steps` is how many stronger models may try after one whose answer is not good enough.
    """

    chooses: bool = True
    ladder: Sequence[str] = ()
    cascade_steps: int = 1


class Chooser:
    """Resolves the names of requests; explicit ones are never rerouted."""

    def __init__(
        self,
        registry: Registry,
        router: Router,
        metrics: Metrics,
        aliases: Mapping[str, str],
        policy: Policy,
    ) -> None:
        self._registry = registry
        self._router = router
        self._metrics = metrics
        self._aliases = aliases
        self._policy = policy
        self.ring = Ring()

    def name(self, request: ParsedRequest, key: ApiKey, request_id: str) -> tuple[str, Decided | None]:
        """Return the model or slot that a request's name leads to, and the decision if there was one to make."""
        offered = self._registry.offered()
        if not (self._policy.chooses and request.kind.chosen and is_auto(request.model, offered, self._aliases)):
            return meaning(request.model, offered, self._aliases), None
        began = time.perf_counter()
        asked = read_request(request.kind, request.body, request.answer)
        decision = self.decide(asked, key)
        decided = Decided(decision, asked.features, request_id, key.name, request.kind.name)
        decided.took_ms = (time.perf_counter() - began) * 1000
        self.ring.add(decided)
        self._metrics.routed(decision.model or decision.slot, decision.reason.value, decided.took_ms / 1000)
        log.info(
            "route",
            request_id=request_id,
            slot=decision.slot,
            model=decision.model,
            reason=decision.reason.value,
            level=decision.score.level.value,
            points=decision.score.points,
            confidence=round(decision.guess.ranked()[0][1], 3) if decision.guess.probabilities else None,
            candidates=[one.slot for one in able(decision.among)],
            took_ms=round(decided.took_ms, 3),
        )
        return decision.slot, decided

    def cascade(
        self, request: ParsedRequest, key: ApiKey, name: str, decided: Decided | None, wish: bool | None
    ) -> Cascade | None:
        """Return who tries again if a plain answer is not good enough: for `auto`, or where the client asks for it."""
        if wish is False or request.stream or not request.kind.chosen or not (wish or decided):
            return None
        among = decided.decision.among if decided else None
        if among is None:
            among = tuple(self._sifted(read_request(request.kind, request.body, request.answer).features, key))
        slot = next((one.slot for one in among if name in (one.slot, one.model)), name)
        subject = decided.decision.guess.subject if decided else ""
        able = [one.slot for one in stronger(among, slot) if one.for_all or (subject and one.expert_in(subject))]
        if not able or not self._policy.cascade_steps:
            return None
        return plan(wanted_of(request.body, request.answer), able, self._policy.cascade_steps)

    def again(self, decided: Decided | None, key: ApiKey, name: str) -> str:
        """Return `name`, or the main slot if what was chosen there can no longer answer: then that is the decision."""
        if decided is None or name == MAIN_SLOT or any(one.slot == name and one.ready for one in self._candidates(key)):
            return name
        log.info("route_left", request_id=decided.request_id, slot=name, instead=MAIN_SLOT)
        decided.decision = replace(decided.decision, slot=MAIN_SLOT, model="", reason=Reason.LEFT)
        return MAIN_SLOT

    def decide(self, asked: Asked, key: ApiKey) -> Decision:
        """Decide among what is there and the key may use; the router is asked only where there is a choice."""
        among = self._sifted(asked.features, key)
        guess = self._guess(asked) if len(able(among)) > 1 else NO_GUESS
        return decide(among, score(asked.features), guess)

    def explain(self, asked: Asked, key: ApiKey) -> Decision:
        """Decide like `decide`, asking the router in any case, and without any trace."""
        return decide(self._sifted(asked.features, key), score(asked.features), self._guess(asked))

    def _guess(self, asked: Asked) -> Guess:
        return seen(self._router.guess(asked.text), images=asked.features.images > 0)

    def _sifted(self, features: Features, key: ApiKey) -> list[Candidate]:
        return sifted(self._candidates(key), features)

    def _candidates(self, key: ApiKey) -> list[Candidate]:
        reports = {endpoint.id: endpoint.report for endpoint in self._registry.endpoints()}
        return candidates(visible_to(key, self._registry.views()), reports, self._policy.ladder)


def finished(decided: Decided | None, model: str, status: int) -> None:
    """Take down what became of a decision."""
    if decided is not None:
        decided.model, decided.status = model, status
