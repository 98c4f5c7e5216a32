"""What the gateway wants to know from any model server, and the Protocol that every client of one fulfils."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class State(StrEnum):
    """Whether a model server may get requests: ready is warm, cold is stopped until somebody asks for it."""

    READY = "ready"
    COLD = "cold"
    LOADING = "loading"
    DOWN = "down"


class Skill(StrEnum):
    """What a request needs a model server for."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"
    TOKENIZE = "tokenize"


@dataclass(frozen=True)
class Report:
    """What one probe found out.

    `context` is in tokens for one request; `slots` is how many requests run at a time; None where the server does
    not say. `reason` is a sentence for the operator whenever the state is not ready. `stuck` says that the server
    takes connections and answers none, so that what waits for it should wait elsewhere. `adapters` are the names of
    its LoRA adapters in the server's own order. `lacks` are the skills that the server has said it does not have.
    """

    state: State
    models: tuple[str, ...] = ()
    context: int | None = None
    slots: int | None = None
    reason: str = ""
    stuck: bool = False
    adapters: tuple[str, ...] = ()
    lacks: frozenset[Skill] = frozenset()


class Engine(Protocol):
    """A model server at one address."""

    @property
    def base_url(self) -> str:
        """Return the address with scheme and port and without a trailing slash."""
        ...

    def headers(self) -> dict[str, str]:
        """Return the headers that a request to this server needs, its key included."""
        ...

    def proved(self) -> None:
        """Note that the server has just produced something for a client: as good as a canary."""
        ...

    async def probe(self, *, busy: bool) -> Report:
        """Ask the server how it is. Never raises for what the server does; `busy`: it works on a request of ours."""
        ...

    async def count(self, path: str, body: bytes) -> int | None:
        """Return how many tokens the prompt of a request to `path` has, by the server's own tokeniser and template.

        Of several prompts the longest counts. None where the server cannot say. Raises what the connection raises.
        """
        ...

    def ignores(self, path: str) -> frozenset[str]:
        """Return the fields of a request to `path` that the server takes and does not heed."""
        ...

    async def save_slots(self) -> int:
        """Have the server write what it knows of its idle conversations to its disk; return how many tokens that is.

        0 where it cannot. Raises `SlotsError` when it fails.
        """
        ...

    async def restore_slots(self) -> int:
        """Have the server read what was saved into slots that hold nothing; return how many tokens that is.

        0 where it cannot, or where nothing was saved. Raises `SlotsError` when it fails.
        """
        ...


class SlotsError(Exception):
    """Saving or restoring slots failed; the text says why. Nothing is lost but time."""
