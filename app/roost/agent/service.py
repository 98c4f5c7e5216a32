"""The agent service of a hub: sessions and their turns, with models and tools as the key that asks may use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import structlog

from roost.agent.audit.log import AuditLog
from roost.agent.delegation import AgentRole, Candidate, Delegation, delegate
from roost.agent.history import SessionArchive, conversation_of
from roost.agent.hub_tools import SessionRunner
from roost.agent.live import Live, Said
from roost.agent.memory.meaning import ApiEmbedder
from roost.agent.memory.memory import Memory
from roost.agent.memory.tools import MemoryTools, bearing
from roost.agent.models import ApiModels
from roost.agent.sessions.records import Body, ToolCallBody, ToolResultBody
from roost.agent.sessions.store import SessionStore
from roost.agent.subagents import Means, SubAgents
from roost.agent.tool import Outcome, ToolCall, ToolResult, ToolRunner
from roost.agent.turn import MAIN_SYSTEM, Setting, TurnMetrics, helper_told, take_turn
from roost.context.blobs import BlobStore
from roost.context.budget import CostMode, bounds
from roost.context.conversation import Conversation
from roost.context.gate import Gate
from roost.context.keeper import Keeper, Slot
from roost.context.modes import Chosen, chosen_mode
from roost.context.pack import Head, Packer
from roost.context.slots import Slots
from roost.context.summarise import ChatSummariser
from roost.context.tokens import ApiCounter
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)
MOST_OPEN = 64
RECALLED = "[What you remember that may bear on this]"
SMALLEST_CONTEXT = 2048
"""Assumed where a server does not say: what fits here fits everywhere."""


@dataclass(frozen=True)
class Asker:
    """Who asks: the name of the key, the key itself (models are asked with it), and whether it may change things."""

    name: str
    secret: str = field(repr=False)
    role: str
    cost_mode: str = ""
    """What an administrator chose for all conversations, '' for none."""


@dataclass
class _Open:
    """A session in use. `think` and `mode` are choices of its user for it."""

    live: Live
    asker: Asker
    keeper: Keeper | None = None
    player: Candidate | None = None
    think: bool = False
    mode: CostMode | None = None
    workspace: str | None = None
    helpers: SubAgents = field(default_factory=SubAgents)

    def chosen(self) -> Chosen:
        """Return the cost mode that holds for it now, and where that comes from."""
        return chosen_mode(self.asker.cost_mode, session=self.mode)


class Agents:
    """All sessions of a hub that are in use."""

    def __init__(
        self,
        store: SessionStore,
        memory: Memory,
        blobs: BlobStore,
        audit: AuditLog,
        http: aiohttp.ClientSession,
        base_url: str,
        runner_of: Callable[[str], ToolRunner],
        count: Callable[[TurnMetrics], None] = lambda _metrics: None,
    ) -> None:
        self.store = store
        self.memory = memory
        self.audit = audit
        self._blobs = blobs
        self._http = http
        self._base_url = base_url
        self._runner_of = runner_of
        self._count = count
        self._open: dict[tuple[str, str], _Open] = {}
        self._slots = Slots(lambda secret, model: ApiCounter(base_url, http, secret, model))

    async def say(self, asker: Asker, session: str, text: str, *, priority: bool = False) -> Said:
        """Have a message answered; return it as it waits.

        Raises:
            SessionNotFoundError: it is no session of that key.
            TooMuchError: too much waits already.
        """
        opened = await self._opened(asker, session)
        opened.asker = asker
        said = Said(text, priority)
        opened.live.say(said)
        return said

    async def live(self, asker: Asker, session: str) -> Live:
        """Return the session to watch or cancel.

        Raises:
            SessionNotFoundError: it is no session of that key.
        """
        return (await self._opened(asker, session)).live

    async def choose(
        self, asker: Asker, session: str, *, think: bool | None, mode: CostMode | None, workspace: str | None
    ) -> dict[str, object]:
        """Change what holds for one session, what is None stays; return what holds now.

        Raises:
            SessionNotFoundError: it is no session of that key.
        """
        opened = await self._opened(asker, session)
        opened.asker = asker
        opened.think = opened.think if think is None else think
        opened.mode = mode or opened.mode
        opened.workspace = workspace or opened.workspace
        held = opened.chosen()
        return {
            "think": opened.think, "cost_mode": held.mode.value, "cost_mode_from": held.origin.value,
            "workspace": opened.workspace, "busy": opened.live.busy,
        }  # fmt: skip

    async def forget(self, owner: str, session: str) -> None:
        """Let go of a session that is removed; a turn under way in it ends."""
        opened = self._open.pop((owner, session), None)
        if opened:
            await opened.live.cancel()
            await opened.helpers.cancel()

    async def close(self) -> None:
        """End all turns under way."""
        await asyncio.gather(*(opened.live.cancel() for opened in self._open.values()))
        await asyncio.gather(*(opened.helpers.cancel() for opened in self._open.values()))

    async def _opened(self, asker: Asker, session: str) -> _Open:
        place = (asker.name, session)
        if place not in self._open:
            await asyncio.to_thread(self.store.info, asker.name, session)
        found = self._open.pop(place, None) or _Open(Live(asker.name, session, self._take), asker)
        self._open[place] = found  # the last one used is the last one let go
        self._let_go()
        return found

    def _let_go(self) -> None:
        """Forget sessions that nobody is in, so that neither conversations nor keys stay in memory for ever."""
        for place, opened in list(self._open.items())[:-1]:
            if len(self._open) <= MOST_OPEN:
                return
            if not (opened.live.busy or opened.live.watched or opened.helpers.status()):
                del self._open[place]

    async def _take(self, text: str, turn: str, live: Live) -> None:
        opened = self._open[(live.owner, live.session)]
        models = ApiModels(self._http, self._base_url, opened.asker.secret)
        delegation = delegate(await models.candidates())
        log.info("delegation", delegation_mode=delegation.mode.value, why=delegation.why, session=live.session)
        keeper = await self._keeper(opened, delegation)

        async def record(*bodies: Body) -> None:
            await asyncio.to_thread(self._record, live.owner, live.session, bodies)

        specialist = delegation[AgentRole.SPECIALIST]
        packer = await self._packer(opened, specialist)
        router_packer = await self._packer(opened, delegation[AgentRole.ROUTER])
        worker = self._runner_of(live.owner)
        embedder = self.embedder(opened.asker)
        own = MemoryTools(self.memory, self.store, embedder, live.owner, live.session)
        runner = SessionRunner(worker, packer.gate, opened.helpers, [own])
        runner.request = text
        setting = Setting(
            session=live.session, models=models, delegation=delegation, runner=runner, keeper=keeper,
            router_packer=router_packer, specialist_packer=packer, record=record, emit=live.tell,
            injected=live.injected, workspace=opened.workspace, think=opened.think, workers=opened.helpers.status,
            count=self._count, recalled=await self._bearing(live, text, embedder),
        )  # fmt: skip
        runner.means = Means(models, specialist, packer, worker, helper_told(setting, turn))
        try:
            await take_turn(setting, text, turn)
        except BaseException:
            opened.keeper = None  # what is on disk holds: the next turn reads it again
            raise

    def embedder(self, asker: Asker) -> ApiEmbedder:
        """Return who makes vectors with the key of whoever asks."""
        return ApiEmbedder(self._base_url, self._http, asker.secret)

    async def _bearing(self, live: Live, text: str, embedder: ApiEmbedder) -> str:
        """Return what is remembered that a request may be about; a memory that cannot be used is told, no hindrance."""
        try:
            lines = await bearing(self.memory, live.owner, text, embedder)
        except (RoostError, OSError) as error:
            log.warning("memory_not_available", reason=str(error))
            await live.tell({"type": "notice", "text": f"Memory is not available: {error}"})
            return ""
        return "\n".join([RECALLED, *lines]) if lines else ""

    def _read(self, owner: str, session: str) -> Conversation:
        return conversation_of(self.store.read(owner, session).records)

    def _record(self, owner: str, session: str, bodies: tuple[Body, ...]) -> None:
        self.store.append(owner, session, *bodies)
        for body in bodies:
            if isinstance(body, ToolCallBody):
                detail = {"tool": body.call.name, "arguments": body.call.arguments, "call": body.call.id}
                self.audit.add(owner, "tool.call", detail, session)
            elif isinstance(body, ToolResultBody):
                result = body.result
                detail = {"call": result.id, "outcome": result.outcome.value, "changed": list(result.changed)}
                self.audit.add(owner, "tool.result", detail, session)

    async def _keeper(self, opened: _Open, delegation: Delegation) -> Keeper:
        player = delegation[AgentRole.MAIN]
        slot = await self._slot(opened, player)
        if opened.keeper is None:
            live = opened.live
            talk = await asyncio.to_thread(self._read, live.owner, live.session)
            opened.keeper = Keeper(
                owner=live.owner, slot=slot, mode=lambda: opened.chosen().mode, head=Head(MAIN_SYSTEM),
                blobs=self._blobs, summariser=self._summariser(opened, player),
                archive=SessionArchive(self.store, live.owner, live.session), conversation=talk,
                session_bytes=talk.size,
            )  # fmt: skip
        elif opened.player != player:
            opened.keeper.move(slot)
        opened.player = player
        return opened.keeper

    async def _packer(self, opened: _Open, player: Candidate) -> Packer:
        slot = await self._slot(opened, player)
        limits = bounds(opened.chosen().mode, slot.context_tokens)
        return Packer(limits, Gate(self._blobs, opened.live.owner, slot.counter), slot.capabilities)

    async def _slot(self, opened: _Open, player: Candidate) -> Slot:
        return await self._slots.slot(opened.asker.secret, player.name, _context_of(player))

    def _summariser(self, opened: _Open, player: Candidate) -> ChatSummariser:
        return ChatSummariser(self._base_url, self._http, opened.asker.secret, player.name, _context_of(player))


def _context_of(player: Candidate) -> int:
    return player.context or SMALLEST_CONTEXT


class NoTools:
    """A runner where no worker is connected: there are no tools, and the Router says so."""

    def tools(self) -> tuple[()]:
        """Return none."""
        return ()

    async def run(self, call: ToolCall) -> ToolResult:
        """Refuse: there was a tool, and its worker left."""
        return ToolResult(id=call.id, outcome=Outcome.REFUSED, text="No worker is connected that has this tool.")
