"""A memory with its routes on a real socket, and an embedder that knows two subjects. The key is the owner's name."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from roost.agent.audit.log import AuditLog
from roost.agent.memory.meaning import EmbeddingError, unit
from roost.agent.memory.memory import Memory
from roost.agent.memory.routes import memory_routes
from roost.agent.memory.store import FactStore
from tests.support.routes import RoutesServer, owner_of

SUBJECTS = {"pet": ("dog", "cat", "animal", "rex"), "town": ("berlin", "city", "capital", "lives")}


class Subjects:
    """Embeds by subject: texts about the same one are alike, whatever their words."""

    def __init__(self, name: str = "subjects", *, broken: bool = False, refuses: str = "") -> None:
        self.name, self.broken, self.refuses = name, broken, refuses
        self.embedded: list[str] = []

    async def model(self) -> str:
        return self.name

    async def embed(self, model: str, texts: Sequence[str]) -> list[array[float]]:
        if self.broken or (self.refuses and any(self.refuses in text for text in texts)):
            raise EmbeddingError(f"The embedding model {model} answered 503.")
        self.embedded += texts
        return [unit([float(any(w in text.lower() for w in words)) for words in SUBJECTS.values()]) for text in texts]


class NoEmbedder:
    """Stands where nobody can be asked."""

    async def model(self) -> str:
        return ""

    async def embed(self, model: str, texts: Sequence[str]) -> list[array[float]]:
        raise EmbeddingError(f"Nobody embeds {len(texts)} texts with {model!r}.", fix="Search by words.")


class World(RoutesServer):
    """The memory, and the address of the API in front of it."""

    def __init__(self, folder: Path, embedder: Subjects) -> None:
        self.changed: list[str] = []
        self.audit = AuditLog(folder / "audit")
        self.memory = Memory(FactStore(folder / "memory"), self.audit)
        routes = memory_routes(self.memory, owner_of, lambda _request: embedder, self.changed.append)
        super().__init__(routes, self.memory.store.close)
