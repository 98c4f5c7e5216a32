"""What a turn took: kept in the session, told to who watches, and counted for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import JsonValue

from roost.agent.delegation import AgentRole
from roost.agent.models import Usage


@dataclass
class RoleUse:
    """What a role took in a turn. Times are seconds."""

    model: str = ""
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0


@dataclass
class TurnMetrics:
    """What a turn took: kept in the session, and counted for Prometheus."""

    mode: str = ""
    preflight: str = ""
    routed_by: str = ""
    stop: str = ""
    roles: dict[AgentRole, RoleUse] = field(default_factory=dict)
    asked: int = 0
    run: int = 0
    blocked: int = 0
    repaired: int = 0
    malformed: int = 0
    questions: dict[str, int] = field(default_factory=dict)
    """Calls that needed the user's word: asked, allowed, refused."""
    compactions: int = 0
    mode_changes: int = 0
    seconds: float = 0.0
    finished: bool = False
    """Whether, as far as receipts show, all that was asked for was done."""
    missing: list[str] = field(default_factory=list)
    parts: dict[str, int] = field(default_factory=dict)
    """Tokens of Main's prompt by part: head, tools, summary, turns, tail."""

    def document(self) -> dict[str, JsonValue]:
        """Return it as it is kept."""
        roles: dict[str, JsonValue] = {
            role.value: {
                "model": use.model, "prompt_tokens": use.usage.prompt, "completion_tokens": use.usage.completion,
                "cached_tokens": use.usage.cached, "seconds": round(use.seconds, 3),
            }
            for role, use in self.roles.items()
        }  # fmt: skip
        return {
            "delegation_mode": self.mode, "preflight": self.preflight, "routed_by": self.routed_by, "stop": self.stop,
            "roles": roles, "tools_asked": self.asked, "tools_run": self.run, "tools_blocked": self.blocked,
            "tools_repaired": self.repaired, "calls_malformed": self.malformed, "questions": dict(self.questions),
            "compactions": self.compactions,
            "mode_changes": self.mode_changes, "finished": self.finished,
            "missing": list(self.missing), "prompt_parts": dict(self.parts), "seconds": round(self.seconds, 3),
        }  # fmt: skip
