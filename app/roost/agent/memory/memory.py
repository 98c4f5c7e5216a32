"""The memory of a hub: remember, find by words and by meaning, forget. The audit log has changes without their text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from roost.agent.audit.log import AuditLog
from roost.agent.memory.facts import Fact, Kind
from roost.agent.memory.meaning import BATCH, Embedder, EmbeddingError, fused, nearest
from roost.agent.memory.store import FactStore, Which

log = structlog.get_logger(__name__)
LEAST_LIKENESS = 0.5
"""Cosine from which a fact is taken to be about a question."""
CANDIDATES = 50
"""Of each ranking, before they are put together."""
CATCH_UP = 128
"""Facts without a vector that one search has made for them: the rest with the next ones."""
BY_WORDS = "words"
BY_MEANING = "words and meaning"


@dataclass(frozen=True)
class Found:
    """What a search found, best first; by what, and if not by meaning, why not."""

    facts: tuple[Fact, ...]
    by: str = BY_WORDS
    why: str = ""


class Memory:
    """Facts of all keys of a hub."""

    def __init__(self, store: FactStore, audit: AuditLog) -> None:
        self.store = store
        self._audit = audit
        self._unfit: set[tuple[str, str]] = set()  # models, and facts that they refused: asked again after a restart

    def remember(
        self, owner: str, text: str, *, source: str, kind: Kind = Kind.FACT, session: str = "", sensitive: bool = False
    ) -> tuple[Fact, bool]:
        """Remember a fact; return it, and whether it is new. Blocks on the disk. See `FactStore.add`."""
        fact, new = self.store.add(
            owner, text, source=source, kind=kind, session=session, sensitive=sensitive
        )  # fmt: skip
        detail = {"fact": fact.id, "kind": fact.kind.value, "source": fact.source, "new": new}
        self._audit.add(owner, "memory.remember", detail, session)
        return fact, new

    def forget(self, owner: str, which: Which, *, session: str = "", dry_run: bool = False) -> list[Fact]:
        """Forget facts for good; return what they were. Blocks on the disk. See `FactStore.forget`."""
        gone = self.store.forget(owner, which, dry_run=dry_run)
        if gone and not dry_run:
            self._audit.add(owner, "memory.forget", {"facts": [fact.id for fact in gone]}, session)
        return gone

    async def search(self, owner: str, query: str, embedder: Embedder, limit: int = 10) -> Found:
        """Return facts that a question is about, best first. Where no model embeds, words alone find them.

        Raises:
            RoostError: the database cannot be used.
        """
        worded = await asyncio.to_thread(self.store.by_words, owner, query, CANDIDATES)
        alike: list[str] = []
        why = ""
        by = BY_WORDS
        try:
            model = await embedder.model()
            if model:
                asked = (await embedder.embed(model, [query]))[0]
                missing = await self._caught_up(owner, model, embedder)
                vectors = await asyncio.to_thread(self.store.vectors, owner, model)
                alike = await asyncio.to_thread(nearest, asked, vectors, LEAST_LIKENESS, CANDIDATES)
                by = BY_MEANING
                why = f"{missing} facts have no vector yet and are found by words only" if missing else ""
            else:
                why = "there is no embedding model"
        except EmbeddingError as error:
            log.warning("memory_by_words", reason=error.message)
            why = error.message
        except OSError as error:  # vectors have no room on the disk; words are found all the same
            log.warning("memory_by_words", reason=str(error))
            why = f"vectors cannot be kept: {error}"
        known = {fact.id: fact for fact in worded}
        if any(name not in known for name in alike):
            known |= {fact.id: fact for fact in await asyncio.to_thread(self.store.all_of, owner)}
        order = fused([fact.id for fact in worded], alike)
        return Found(tuple(known[name] for name in order if name in known)[:limit], by, why)

    async def _caught_up(self, owner: str, model: str, embedder: Embedder) -> int:
        """Make vectors for facts that have none; return how many are still without."""
        lacking = await asyncio.to_thread(self.store.without_vector, owner, model, CATCH_UP * 8)
        now = [fact for fact in lacking if (model, fact.id) not in self._unfit][:CATCH_UP]
        made = 0
        for start in range(0, len(now), BATCH):
            made += await self._embedded(owner, model, now[start : start + BATCH], embedder)
        return len(lacking) - made

    async def _embedded(self, owner: str, model: str, facts: Sequence[Fact], embedder: Embedder) -> int:
        """Make and keep vectors of some facts; return of how many. One that is refused costs the others none."""
        try:
            made = await embedder.embed(model, [fact.text for fact in facts])
        except EmbeddingError as error:
            if len(facts) == 1:  # the model has just taken a question: it is this fact's fault
                log.warning("memory_fact_without_vector", fact=facts[0].id, reason=error.message)
                self._unfit.add((model, facts[0].id))
                return 0
            half = len(facts) // 2
            first = await self._embedded(owner, model, facts[:half], embedder)
            return first + await self._embedded(owner, model, facts[half:], embedder)
        pairs = [(fact.id, vector) for fact, vector in zip(facts, made, strict=True)]
        await asyncio.to_thread(self.store.set_vectors, owner, model, pairs)
        return len(pairs)
