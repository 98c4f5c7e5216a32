"""Why something was placed as it was, why something was not, and what would have to change: in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from roost.fleet.place.choices import Table, worth
from roost.fleet.place.fits import Fit, Room, Site
from roost.fleet.place.search import Asked, Pick
from roost.fleet.place.wishes import Candidate, Wish
from roost.fleet.plan import HostCapacity, Placed, Refused
from roost.hosts.tiers import LEAST_TOKENS_PER_S

GIB = 1 << 30
LEAST_WORTHWHILE_CONTEXT = 512


def gib(count: float) -> str:
    """Write bytes for people, rounded up: what is said to be missing is enough."""
    return f"{-(-count * 10 // GIB) / 10:.1f} GiB"


def tokens(count: int) -> str:
    """Write a number of tokens: `32,768`."""
    return f"{count:,}"


def where(fit: Fit, site: Site, layers: int) -> str:
    """Say on which devices a server lies."""
    if fit.way == "processor":
        note = ", for its graphics processors have no room" if site.host.gpus else ""
        return f"on the processor{note}"
    names = " and ".join(f"GPU{site.host.gpus[i - 1].index}" for i in fit.places)
    if fit.way == "graphics":
        return f"whole on {names}"
    if fit.way == "split":
        return f"split over {names} ({' + '.join(map(str, fit.layers))} layers), since no single one holds it"
    return f"{sum(fit.layers)} of {layers} layers on {names}, the rest on the processor, since no more fit: slower"


def reason(pick: Pick, table: Table) -> str:
    """Say why a server is placed as it is."""
    site, candidate, wish = table.sites[pick.number], pick.offer.candidate, pick.asked.wish
    if wish.model:
        why = "named by the slot"
    else:
        why = f"best for {wish.lead} of what is allowed and fits (quality {pick.offer.quality})"
        if not pick.quality:
            why = f"no other model for {wish.lead} fits, so one that is served here already"
    if wish.gpu == "none":
        place = "on the processor, as the slot says"
    else:
        place = where(pick.fit, site, table.estimates.layers(candidate))
    return f"{why}; {place}; at most {pick.fit.tokens_per_s:.0f} tokens/s"


def placed_line(placed: Placed, note: str = "") -> str:
    """Write one placed server as a line of the explanation."""
    slot = f"{placed.slot}#{placed.copy}" if placed.copy else placed.slot
    spare = f"; room kept on {', '.join(placed.spares)}" if placed.spares else ""
    over = f" and {', '.join(f'{h} ({n} layers)' for h, n in placed.rpc)}" if placed.rpc else ""
    return (
        f"{slot}: {placed.model}:{placed.quantisation} on {placed.host}{over}, {placed.settings.parallel} x "
        f"{tokens(placed.settings.context_size)} tokens: {note}{placed.reason}{spare}"
    )


@dataclass(frozen=True)
class Shortage:
    """How much is missing for a model on a host, and of which memory."""

    candidate: Candidate
    site: Site
    context: int
    host: int
    gpu: int

    @property
    def total(self) -> int:
        """Return all bytes missing."""
        return self.host + self.gpu

    def __str__(self) -> str:
        parts = []
        if self.gpu:
            parts.append(f"{gib(self.gpu)} more graphics memory")
        if self.host:
            parts.append(f"{gib(self.host)} more memory")
        return " and ".join(parts)


def refusal(asked: Asked, table: Table, rooms: Sequence[Room]) -> Refused:
    """Say why nothing was placed for a wish, and what would have to change."""
    wish = asked.wish
    name = f"{wish.model}:{wish.quantisation}" if wish.quantisation else wish.model
    numbers = [n for n, site in enumerate(table.sites) if wish.host in {"", site.host.name}]

    def refused(why: str, remedy: str) -> Refused:
        return Refused(wish.slot, name, why, remedy, wish.host, asked.copy)

    if not numbers:
        return refused(f"there is no host {wish.host}" if wish.host else "there is no host", "Add a host.")
    named = table.named(wish)
    if not named:
        return refused(f"no model {name} is known", "Name one of the catalogue, or add it with roost models add.")
    fitting = [c for c in named if any(worth(c, wish, table.sites[n].host.tier) for n in numbers)]
    if not fitting:
        return refused(*_not_allowed(wish, named, [table.sites[n].host.tier for n in numbers]))
    known = [c for c in fitting if table.estimates.layers(c)]
    if not known:
        return refused(
            f"nothing is known of the shape of {', '.join(sorted({c.reference for c in fitting}))}",
            "Fetch it with roost models pull, so that its header can be read.",
        )
    short = min(_shortages(wish, known, table, numbers, rooms), key=lambda s: (s.total, s.site.host.name), default=None)
    if short is None:
        return refused(*_no_such_gpu(wish, table, numbers))
    ways = list(_alternatives(wish, known, table, numbers, rooms))
    if not short.total and _would_fit(wish, short, table, rooms):
        return refused(
            f"it would answer with fewer than {LEAST_TOKENS_PER_S:.0f} tokens/s",
            "Name the model in the slot if that is fast enough.",
        )
    if not short.total:
        return refused(
            f"{short.candidate.reference} with {wish.parallel} x {tokens(short.context)} tokens fits what is left on "
            f"{short.site.host.name} in all, but not as that is spread over its graphics processors",
            f"{', or '.join(ways) or 'Another model, or fewer slots'}.",
        )
    ways = [str(short), *ways]
    kind = "graphics memory" if short.gpu else "memory"
    why = (
        f"{short.candidate.reference} with {wish.parallel} x {tokens(short.context)} tokens does not fit the {kind} "
        f"that is left on {short.site.host.name}"
    )
    return refused(why, f"{', or '.join(ways)}.")


def _would_fit(wish: Wish, short: Shortage, table: Table, rooms: Sequence[Room]) -> bool:
    """Say whether a model fits, however slowly it answers."""
    number = table.numbers[short.site.host.name]
    graphics = bool(short.site.places(wish))
    offer = table.offer(short.candidate, wish, short.context, 1, graphics=graphics, partly=graphics)
    return offer is not None and bool(short.site.fit(replace(offer, least_tokens_per_s=0.0), wish, rooms[number]))


def _not_allowed(wish: Wish, named: Sequence[Candidate], tiers: Sequence[str]) -> tuple[str, str]:
    able = [c for c in named if c.quality(wish.lead)]
    if not able:
        return f"the catalogue has no model for {wish.lead}", "Name a model in the slot, or add one to models_custom."
    held_back = sorted((c for c in able if not c.available), key=lambda c: (-c.quality(wish.lead), c.reference))
    if held_back:
        first = held_back[0]
        return f"no model for {wish.lead} is here: {first.reference} {first.why_not}", first.remedy
    return (
        f"all models for {wish.lead} are meant for larger hosts than {', '.join(sorted(set(tiers)))}",
        "Name one in the slot if it shall run nevertheless.",
    )


def _no_such_gpu(wish: Wish, table: Table, numbers: Sequence[int]) -> tuple[str, str]:
    found = sorted({f"GPU{g.index}" for n in numbers for g in table.sites[n].host.gpus}) or ["none"]
    return f"the slot names gpu {list(wish.gpu)}; there is {', '.join(found)}", "Correct gpu of the slot."


def _shortages(
    wish: Wish, known: Sequence[Candidate], table: Table, numbers: Sequence[int], rooms: Sequence[Room]
) -> Iterator[Shortage]:
    """Yield what is missing for each model on each kind of room."""
    seen = set()
    for number in numbers:
        site, room = table.sites[number], rooms[number]
        if (site.host.tier, room) in seen:
            continue
        seen.add((site.host.tier, room))
        places = [i for i in site.places(wish) if not site.host.gpus[i - 1].alone]
        places = places or sorted(site.places(wish), key=lambda i: -room[i])[:1]
        if not places and wish.gpu not in {"auto", "none"}:
            continue
        for candidate in known:
            if not worth(candidate, wish, site.host.tier):
                continue
            context = wish.first_context(candidate)
            layers = (table.estimates.layers(candidate),) if places else ()
            needs = table.estimates.needs(candidate, wish.settings(context), layers)
            if needs is None:
                continue
            gpu = sum(needs.gpus) - sum(room[i] for i in places)
            shared = sum(needs.gpus) if places and site.host.gpus[places[0] - 1].integrated else 0
            yield Shortage(candidate, site, context, max(0, needs.host + shared - room[0]), max(0, gpu))


def _alternatives(
    wish: Wish, known: Sequence[Candidate], table: Table, numbers: Sequence[int], rooms: Sequence[Room]
) -> Iterator[str]:
    """Yield changes of the wish that would fit what is left now."""

    def fitting(changed: Wish, candidates: Sequence[Candidate], context: int) -> Candidate | None:
        for number, candidate in ((n, c) for n in numbers for c in candidates):
            site = table.sites[number]
            graphics = bool(site.places(changed))
            length = min(context, candidate.context_length)
            offer = table.offer(candidate, changed, length, 1, graphics=graphics)
            if offer and (graphics or not isinstance(changed.gpu, tuple)) and site.fit(offer, changed, rooms[number]):
                return candidate
        return None

    wished = wish.context_size or wish.least_context
    halves = [wished >> i for i in range(1, 16) if wished >> i >= LEAST_WORTHWHILE_CONTEXT]
    shorter = next((context for context in halves if fitting(wish, known, context)), None)
    if shorter:
        yield f"a context of {tokens(shorter)} instead of {tokens(wished)}"
    if wish.parallel > 1 and fitting(replace(wish, parallel=1), known, wished):
        yield f"parallel 1 instead of {wish.parallel}"
    others = [c for c in table.candidates if c.model == wish.model and c.quantisation != wish.quantisation]
    smaller = fitting(wish, others, wished) if wish.quantisation else None
    if smaller:
        yield f"the quantisation {smaller.quantisation}"
    graphics = wish.gpu != "none" and any(table.sites[n].host.gpus for n in numbers)
    if graphics and fitting(replace(wish, gpu="none"), known, wished):
        yield "gpu: none, which runs it on the processor, slowly"


def loss(pick: Pick) -> bool:
    """Say whether a model that was meant for graphics processors does not lie on them whole."""
    return pick.asked.wish.gpu != "none" and pick.fit.way in {"partly", "processor"} and len(pick.fit.taken) > 1


def lost_graphics(before: Placed, pick: Pick, host: HostCapacity) -> str:
    """Say that a server lay on graphics processors that its host shows no more, for a broken driver say; or nothing."""
    gone = set(before.split.gpus) - {gpu.index for gpu in host.gpus}
    if before.host != host.name or not gone or pick.fit.places or pick.asked.wish.gpu == "none":
        return ""
    return "; the graphics processors that it lay on are not usable any more (`roost doctor`)"
