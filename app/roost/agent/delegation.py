"""Which models play which role: Main talks, the Router decides, the Specialist acts. One model may play all three.

The mode follows from the models there are: by the slot that the catalogue gave a model, then by a word in its name.
Models that may not be used unasked (clouds) get no role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from roost.ops.errors import RoostError


class DelegationMode(StrEnum):
    """How many models there are for the three roles."""

    TRIO = "trio"
    DUO = "duo"
    SINGLE = "single"


class AgentRole(StrEnum):
    """Who does what."""

    MAIN = "main"
    ROUTER = "router"
    SPECIALIST = "specialist"


NAME_WORDS: Mapping[AgentRole, tuple[str, ...]] = {
    AgentRole.ROUTER: ("router", "functiongemma", "arch-router"),
    AgentRole.SPECIALIST: ("specialist", "coder", "tool", "function", "hammer", "xlam"),
}


@dataclass(frozen=True)
class Candidate:
    """A model that could play a role. `context` is that of one request, in tokens."""

    name: str
    slot: str = ""
    context: int = 0
    auto: bool = True
    generates: bool = True


@dataclass(frozen=True)
class Delegation:
    """Who plays which role, and why."""

    mode: DelegationMode
    models: Mapping[AgentRole, Candidate]
    why: str

    def __getitem__(self, role: AgentRole) -> Candidate:
        """Return who plays a role."""
        return self.models[role]


def delegate(candidates: Sequence[Candidate]) -> Delegation:
    """Return who plays which role.

    Raises:
        RoostError: there is no model.
    """
    free = [one for one in candidates if one.generates and one.auto]
    if not free:
        raise RoostError("There is no model to talk to.", fix="See `roost models` and `roost doctor`.")
    reasons: dict[AgentRole, str] = {}
    players: dict[AgentRole, Candidate] = {}
    for role in AgentRole:
        if found := _find(role, free):
            players[role], reasons[role] = found
    if AgentRole.MAIN not in players:
        players[AgentRole.MAIN], reasons[AgentRole.MAIN] = free[0], "the first that there is"
    for role in (AgentRole.SPECIALIST, AgentRole.ROUTER):
        if role not in players:
            stand_in = AgentRole.SPECIALIST if role == AgentRole.ROUTER else AgentRole.MAIN
            players[role], reasons[role] = players[stand_in], f"stands in, as {stand_in}"
    count = len({player.name for player in players.values()})
    mode = {1: DelegationMode.SINGLE, 2: DelegationMode.DUO}.get(count, DelegationMode.TRIO)
    why = "; ".join(f"{role}: {players[role].name} ({reasons[role]})" for role in AgentRole)
    return Delegation(mode, players, why)


def _find(role: AgentRole, free: Sequence[Candidate]) -> tuple[Candidate, str] | None:
    for one in free:
        if one.slot == role.value:
            return one, "its slot"
    for word in NAME_WORDS.get(role, ()):
        for one in free:
            if word in one.name.lower() and one.slot in ("", role.value):
                return one, f"{word!r} in its name"
    return None
