"""What the gateway wants to know from any model server, and the Protocol that every client of one fulfils."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import aiohttp


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
class ModelReport:
    """What a server with several models says of one of them.

    `context` is in tokens for one request as it is loaded now, `context_most` what it could be loaded with; `memory` is
    what it holds, in bytes, `vram` how much of that lies on graphics processors. None where the server does not say.
    """

    state: State = State.READY
    context: int | None = None
    context_most: int | None = None
    lacks: frozenset[Skill] = frozenset()
    memory: int | None = None
    vram: int | None = None
    quantisation: str = ""


@dataclass(frozen=True)
class Load:
    """How much a server has to do: requests at work and waiting; the share of its key-value cache that is in use, and
    the share of prompt tokens that came from it, each 0 to 1. None where it does not say."""

    running: int | None = None
    waiting: int | None = None
    cache_used: float | None = None
    cache_hits: float | None = None


@dataclass(frozen=True)
class Report:
    """What one probe found out.

    `context` is in tokens for one request; `slots` is how many requests run at a time; None where the server does
    not say. `reason` is a sentence for the operator whenever the state is not ready. `stuck` says that the server
    takes connections and answers none, so that what waits for it should wait elsewhere. `adapters` are the names of
    its LoRA adapters in the server's own order. `lacks` are the skills that the server has said it does not have.
    `details` are by model where it serves several of them; `version` is the server's own.
    `sees` (images), `calls` (its template knows tools) and `parameters` are None where the server does not say.
    `fingerprint` is the same for servers of the same model file and template; empty, or another for each host, where
    that is not known.
    """

    state: State
    models: tuple[str, ...] = ()
    context: int | None = None
    slots: int | None = None
    reason: str = ""
    stuck: bool = False
    adapters: tuple[str, ...] = ()
    lacks: frozenset[Skill] = frozenset()
    sees: bool | None = None
    calls: bool | None = None
    parameters: int | None = None
    details: Mapping[str, ModelReport] = field(default_factory=dict)
    load: Load = Load()
    version: str = ""
    fingerprint: str = ""

    def context_of(self, model: str) -> int | None:
        """Return the context of one request to a model, in tokens."""
        detail = self.details.get(model)
        return self.context if detail is None else detail.context

    def lacks_of(self, model: str) -> frozenset[Skill]:
        """Return the skills that a model of this server does not have."""
        detail = self.details.get(model)
        return self.lacks if detail is None else self.lacks | detail.lacks

    def state_of(self, model: str) -> State:
        """Return whether a model is warm: a ready server loads a cold one by itself when it is asked for."""
        detail = self.details.get(model)
        return self.state if detail is None or self.state is not State.READY else detail.state


class Content(Protocol):
    """The body of an answer as it comes."""

    async def readany(self) -> bytes:
        """Return what has arrived, waiting for the first of it; nothing at the end."""
        ...


class Answer(Protocol):
    """What a model server answers: the part of `aiohttp.ClientResponse` that the gateway uses."""

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers."""
        ...

    @property
    def content_type(self) -> str:
        """Return the media type, without its parameters."""
        ...

    @property
    def content(self) -> Content:
        """Return the body as it comes."""
        ...

    async def read(self) -> bytes:
        """Return the whole body."""
        ...


class Engine(Protocol):
    """A model server at one address."""

    @property
    def pause_s(self) -> float:
        """Return how many seconds to leave between two probes at least; 0 for a server in the fleet."""
        ...

    @property
    def base_url(self) -> str:
        """Return the address with scheme and port and without a trailing slash."""
        ...

    def headers(self) -> dict[str, str]:
        """Return the headers that a request to this server needs, its key included."""
        ...

    def send(self, path: str, body: bytes, limits: aiohttp.ClientTimeout) -> AbstractAsyncContextManager[Answer]:
        """Post a request of the kind that `path` names in the gateway's own API; the answer is as that API has it.

        Raises what the connection raises.
        """
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


@runtime_checkable
class Continues(Protocol):
    """An engine that can go on with an answer that another server of the same model began."""

    async def why_not_continue(self, path: str, before: bytes, after: bytes, text: str) -> str:
        """Say why it would not go on exactly where `text` ends, or nothing if it does.

        `before` is the request to `path` as it was, `after` the one that goes on. Raises what the connection raises.
        """
        ...


class SlotsError(Exception):
    """Saving or restoring slots failed; the text says why. Nothing is lost but time."""
