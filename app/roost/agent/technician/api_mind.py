"""A mind from the API: the model that plays the Specialist now, with what is known of its context and template."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp

from roost.agent.delegation import AgentRole, delegate
from roost.agent.models import ApiModels
from roost.agent.technician.job import Decision, Job, Verdict
from roost.agent.technician.mind import ModelMind, patient
from roost.agent.tool import ToolSpec
from roost.context.blobs import BlobStore
from roost.context.budget import CostMode, bounds
from roost.context.gate import Gate
from roost.context.pack import Packer
from roost.context.slots import Slots
from roost.context.tokens import ApiCounter

SMALLEST_CONTEXT = 2048
"""Assumed where a server does not say: what fits here fits everywhere."""


class ApiMind:
    """Looks for its model with each question: one that is stopped is not waited for when another can do it.

    Used in one event loop; `close` it there. `ca` is the file of the authority that vouches for the API.
    """

    def __init__(self, base_url: str, key: str, ca: Path | None, blobs: BlobStore, owner: str, mode: CostMode) -> None:
        self._base_url = base_url
        self._key = key
        self._ca = ca
        self._blobs = blobs
        self._owner = owner
        self._mode = mode
        self._http: aiohttp.ClientSession | None = None
        self._slots = Slots(lambda secret, model: ApiCounter(base_url, self._session(), secret, model))

    async def plan(self, job: Job, tools: list[ToolSpec]) -> list[str]:
        """Return the steps that the goal seems to need. Raises RoostError."""
        return await (await self._mind()).plan(job, tools)

    async def decide(self, job: Job, tools: list[ToolSpec]) -> Decision:
        """Return what to do next. Raises RoostError."""
        return await (await self._mind()).decide(job, tools)

    async def reflect(self, job: Job, tools: list[ToolSpec]) -> Verdict:
        """Say whether the goal is reached. Raises RoostError."""
        return await (await self._mind()).reflect(job, tools)

    async def close(self) -> None:
        """Close the connections."""
        if self._http:
            await self._http.close()
            self._http = None

    async def _mind(self) -> ModelMind:
        models = ApiModels(self._session(), self._base_url, self._key)
        player = delegate(await patient(models.candidates))[AgentRole.SPECIALIST]
        context = player.context or SMALLEST_CONTEXT
        slot = await patient(lambda: self._slots.slot(self._key, player.name, context))
        gate = Gate(self._blobs, self._owner, slot.counter)
        return ModelMind(models, player, Packer(bounds(self._mode, context), gate, slot.capabilities))

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            trusted = ssl.create_default_context(cafile=self._ca) if self._ca else True
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted), trust_env=False)
        return self._http
