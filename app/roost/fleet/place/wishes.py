"""What is asked of placement: which models there are, and which slots want one. Plain data, and the shape of a tier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from roost.fleet.plan import HostCapacity
from roost.hosts.tiers import RANKS
from roost.models.footprint import CacheType, ServerSettings

# Most important first: when memory is short, the roles at the end go without.
ROLES = ("main", "router", "specialist", "embedding", "coding", "vision", "rlm", "memory")
# Roles of which a model that only talks knows nothing.
NOT_BY_MAIN = frozenset({"embedding", "vision"})
LEAST_CONTEXT = 4096  # tokens a request that an automatic choice has at least, if the model knows so many
WISHED_CONTEXT = 32768  # what it grows to where memory is left
# Slots of a host that names none, by its tier (requirement M1). The first serves every role that has no slot.
SHAPES: dict[str, tuple[str, ...]] = {
    "embedded": ("main",),
    "potato": ("main",),
    "sweet": ("main", "router"),
    "power": ("main", "router", "specialist"),
    "beast": ("main", "router", "specialist"),
}
QUALITY_UNIT = 100  # a quality is role preference (0 to 100) times this, less what the quantisation costs
STEP_COST = 5  # of QUALITY_UNIT, for each step down in the catalogue's order of quantisations
NO_ROLE_DIVISOR = 4  # a main model in a role that the catalogue does not give it


@dataclass(frozen=True)
class Candidate:
    """A model in one quantisation. `rank` is the quantisation's place in the catalogue's order, 0 the preferred one.

    `active_share` is the share of the weights that one token reads: less than 1 for a mixture of experts.
    An automatic choice leaves alone what is not `available`; `why_not` says why, `remedy` what would change that.
    `only` names the hosts that have its file, where no other can be given it; empty: any host.
    """

    model: str
    quantisation: str
    roles: tuple[tuple[str, int], ...]
    tier: str
    context_length: int
    rank: int = 0
    active_share: float = 1.0
    available: bool = True
    why_not: str = ""
    remedy: str = ""
    only: frozenset[str] = frozenset()

    @property
    def reference(self) -> str:
        """Return how people write it: `NAME:QUANT`."""
        return f"{self.model}:{self.quantisation}"

    def quality(self, role: str) -> int:
        """Return how well it does in a role; 0 is not at all."""
        preferences = dict(self.roles)
        unit = max(1, QUALITY_UNIT - STEP_COST * self.rank)
        if role in preferences or role == "main" or role in NOT_BY_MAIN:
            return preferences.get(role, 0) * unit
        return preferences.get("main", 0) * unit // NO_ROLE_DIVISOR

    def lies_on(self, host: str) -> bool:
        """Say whether a host has its file, or can be given it."""
        return not self.only or host in self.only

    def allowed_on(self, tier: str) -> bool:
        """Say whether a host of this tier may be given it without being asked."""
        return RANKS.get(self.tier, 0) <= RANKS.get(tier, 0)


@dataclass(frozen=True)
class Wish:
    """One slot that wants a model server. What is empty or 0 is chosen; what is named is kept to.

    `host` empty: anywhere, `copies` of it. `optional`: where it finds no model of its own, another slot does its work.
    `failover`: though asked for on a host, another may run it when that one is lost, as with what may run anywhere.
    """

    slot: str
    role: str = ""
    model: str = ""
    quantisation: str = ""
    gpu: Literal["auto", "none"] | tuple[int, ...] = "auto"
    context_size: int = 0
    least_context: int = LEAST_CONTEXT
    parallel: int = 1
    cache_ram_mib: int = 0
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    adapters: tuple[str, ...] = ()
    host: str = ""
    copies: int = 1
    optional: bool = False
    failover: bool = False

    @property
    def lead(self) -> str:
        """Return the role it is chosen for."""
        return self.role or (self.slot if self.slot in ROLES else "main")

    @property
    def order(self) -> tuple[int, str, str]:
        """Return its place in the order of importance."""
        lead = self.lead
        return (ROLES.index(lead) if lead in ROLES else len(ROLES), self.slot, self.host)

    def settings(self, context_size: int) -> ServerSettings:
        """Return how its server is started with so many tokens of context a request."""
        return ServerSettings(
            context_size=context_size,
            parallel=self.parallel,
            cache_type_k=self.cache_type_k,
            cache_type_v=self.cache_type_v,
            cache_ram_mib=self.cache_ram_mib,
            adapters=self.adapters,
        )

    def first_context(self, candidate: Candidate) -> int:
        """Return the context with which it is placed first; an automatic one may grow."""
        return self.context_size or min(self.least_context, candidate.context_length)


def shape_of(host: HostCapacity, *, parallel: int = 1, cache_ram_mib: int = 0) -> tuple[Wish, ...]:
    """Return the slots of a host that names none itself, by its tier."""
    return tuple(
        Wish(slot, parallel=parallel, cache_ram_mib=cache_ram_mib, host=host.name, optional=number > 0)
        for number, slot in enumerate(SHAPES[host.tier])
    )
