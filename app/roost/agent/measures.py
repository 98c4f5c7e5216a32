"""What turns took, counted for Prometheus. Names: `roost.ops.metric_names`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from roost.agent.turn_metrics import TurnMetrics
from roost.gateway.observe.series import Counts, Distribution
from roost.ops import metric_names as names


class Measures:
    """The families of an agent; one object a hub."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._turns = Counts(names.AGENT_TURNS, self.registry)
        self._preflights = Counts(names.AGENT_PREFLIGHTS, self.registry)
        self._tokens = Counts(names.AGENT_TOKENS, self.registry)
        self._role_seconds = Counts(names.AGENT_ROLE_SECONDS, self.registry)
        self._calls = Counts(names.AGENT_CALLS, self.registry)
        self._questions = Counts(names.AGENT_QUESTIONS, self.registry)
        self._context = Counts(names.AGENT_CONTEXT, self.registry)
        self._seconds = Distribution(names.AGENT_TURN_SECONDS, self.registry)

    def count(self, turn: TurnMetrics) -> None:
        """Count a turn that is over."""
        self._turns.add(turn.mode, "finished" if turn.finished else turn.stop or "unfinished")
        self._preflights.add(turn.preflight.partition(":")[0] or "none", turn.routed_by or "nobody")
        self._seconds.observe(turn.seconds, turn.mode)
        for role, use in turn.roles.items():
            who = (role.value, use.model)
            self._role_seconds.add(*who, amount=use.seconds)
            amounts = {"in": use.usage.prompt, "cached": use.usage.cached, "out": use.usage.completion}
            for direction, amount in amounts.items():
                self._tokens.add(*who, direction, amount=amount)
        results = {
            "asked": turn.asked, "run": turn.run, "blocked": turn.blocked, "repaired": turn.repaired,
            "malformed": turn.malformed,
        }  # fmt: skip
        for result, amount in results.items():
            self._calls.add(result, amount=amount)
        for result, amount in turn.questions.items():
            self._questions.add(result, amount=amount)
        self._context.add("compaction", amount=turn.compactions)
        self._context.add("mode_change", amount=turn.mode_changes)

    def text(self) -> bytes:
        """Return them in Prometheus' text format."""
        return generate_latest(self.registry)
