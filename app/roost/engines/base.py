"""What the gateway wants to know from any model server, and the Protocol that every client of one fulfils."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class State(StrEnum):
    """Whether a model server may get requests."""

    READY = "ready"
    LOADING = "loading"
    DOWN = "down"


@dataclass(frozen=True)
class Report:
    """What one probe found out.

    `context` is in tokens for one request; `slots` is how many requests run at a time; None where the server does
    not say. `reason` is a sentence for the operator whenever the state is not ready. `stuck` says that the server
    takes connections and answers none, so that what waits for it should wait elsewhere.
    """

    state: State
    models: tuple[str, ...] = ()
    context: int | None = None
    slots: int | None = None
    reason: str = ""
    stuck: bool = False


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
