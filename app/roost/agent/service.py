"""The agent service of a hub: sessions and their turns, with models and tools as the key that asks may use them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import structlog

from roost.agent.audit.log import AuditLog
from roost.agent.channel.desk import NO_WORKER
from roost.agent.delegation import AgentRole, Candidate, Delegation, delegate
from roost.agent.history import SessionArchive, conversation_of
from roost.agent.hub_tools import SessionRunner
from roost.agent.knowledge import CHANGED, Knowledge, Notice
from roost.agent.live import Live, Said
from roost.agent.memory.meaning import ApiEmbedder
from roost.agent.memory.tools import MEMORY_NAMES, MemoryTools
from roost.agent.models import ApiModels
from roost.agent.permission.allowed import AllowedStore, OpenQuestions
from roost.agent.permission.asking import Asking, AskingRunner, Question
from roost.agent.permission.conversations import asking_of, settle
from roost.agent.permission.policy import Answer
from roost.agent.sessions.records import Body, ToolCallBody, ToolResultBody
from roost.agent.sessions.store import SessionStore
from roost.agent.sessions.sweeping import Sweeper
from roost.agent.skills.tools import SkillTools
from roost.agent.subagents import Means, SubAgents
from roost.agent.tool import Outcome, ToolCall, ToolResult, ToolRunner
from roost.agent.turn import MAIN_SYSTEM, Record, Setting, helper_told, take_turn, tell_call
from roost.agent.turn_metrics import TurnMetrics
from roost.agent.work import Told
from roost.context.blobs import BlobStore
from roost.context.budget import CostMode, bounds
from roost.context.conversation import Conversation
from roost.context.events import ContextEvent
from roost.context.gate import Gate
from roost.context.keeper import Keeper, Slot
from roost.context.modes import Chosen, chosen_mode
from roost.context.pack import Head, Packer
from roost.context.slots import Slots
from roost.context.summarise import ChatSummariser
from roost.context.tokens import ApiCounter

log = structlog.get_logger(__name__)
RunnerOf = Callable[[str, str | None], ToolRunner]
"""Gives what runs tools for a key, in the workspace that a session chose."""
MOST_OPEN = 64
UNDO = "undo"
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
    default_mode: str = ""
    """What is configured for them, '' for nothing."""


@dataclass
class _Open:
    """A session in use. `think` and `mode` are choices of its user for it."""

    live: Live
    asker: Asker
    asking: Asking
    keeper: Keeper | None = None
    player: Candidate | None = None
    think: bool = False
    mode: CostMode | None = None
    workspace: str | None = None
    head: Head = field(default_factory=lambda: Head(MAIN_SYSTEM))
    head_version: int = -1
    """Of what is remembered, when the head was made; see `Knowledge.version`."""
    helpers: SubAgents = field(default_factory=SubAgents)

    def chosen(self) -> Chosen:
        """Return the cost mode that holds for it now, and where that comes from."""
        return chosen_mode(self.asker.cost_mode, self.asker.default_mode, self.mode)


class Agents:
    """All sessions of a hub that are in use."""

    def __init__(
        self,
        store: SessionStore,
        knowledge: Knowledge,
        blobs: BlobStore,
        audit: AuditLog,
        http: aiohttp.ClientSession,
        base_url: str,
        runner_of: RunnerOf,
        allowed: AllowedStore,
        questions: OpenQuestions,
        count: Callable[[TurnMetrics], None] = lambda _metrics: None,
    ) -> None:
        self.store = store
        self.knowledge = knowledge
        self.audit = audit
        self.allowed = allowed
        self._questions = questions
        self._blobs = blobs
        self._http = http
        self._base_url = base_url
        self._runner_of = runner_of
        self._count = count
        self._open: dict[tuple[str, str], _Open] = {}
        self._stopping = False
        self.sweeper = Sweeper(store, blobs)
        self._slots = Slots(lambda secret, model: ApiCounter(base_url, http, secret, model))

    async def say(self, asker: Asker, session: str, said: Said) -> Said:
        """Have a message answered; return it as it waits.

        Raises:
            SessionNotFoundError: it is no session of that key.
            TooMuchError: too much waits already.
        """
        opened = await self._opened(asker, session)
        opened.asker = asker
        opened.live.say(said)
        return said

    async def live(self, asker: Asker, session: str) -> Live:
        """Return the session to watch or cancel.

        Raises:
            SessionNotFoundError: it is no session of that key.
        """
        return (await self._opened(asker, session)).live

    async def asked(self, asker: Asker, session: str) -> list[Question]:
        """Return what waits for the user's word in a session.

        Raises:
            SessionNotFoundError: it is no session of that key.
        """
        return (await self._opened(asker, session)).asking.open

    async def answer(self, asker: Asker, session: str, question: str, answer: Answer) -> Question:
        """Answer what is asked in a session.

        Raises:
            SessionNotFoundError: it is no session of that key.
            QuestionNotFoundError: nothing like that is asked, or it was answered already.
        """
        return (await self._opened(asker, session)).asking.answer(question, answer, asker.name)

    def settle(self) -> None:
        """End the questions of a process that was killed."""
        settle(self._questions, self.store, self.audit)

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

    async def undo(self, asker: Asker, session: str) -> ToolResult:
        """Have the files put back that the last call of a session changed: asked by the user, as a call like any other.

        Raises:
            SessionNotFoundError: it is no session of that key.
            BusyError: a turn is under way in it, which may change them again.
        """
        opened = await self._opened(asker, session)
        with opened.live.held():
            turn = f"undo-{uuid.uuid4().hex[:12]}"
            call = ToolCall(id=turn, name=UNDO, arguments={}, session=session, workspace=opened.workspace)
            record = self._recorder(opened.live)
            await tell_call(Told(call), turn, record, opened.live.tell)
            result = await self._runner_of(asker.name, opened.workspace).run(call)
            await tell_call(Told(call, result), turn, record, opened.live.tell)
            opened.keeper = None  # what is on disk holds: the next turn reads it again
            return result

    async def forget(self, owner: str, session: str) -> None:
        """Let go of a session that is to be removed; a turn under way in it ends. See `Sweeper`."""
        opened = self._open.pop((owner, session), None)
        if opened:
            await opened.live.removed()
            await opened.helpers.cancel()
        await self.sweeper.mark(owner)  # before it is removed: a crash may come between

    def let_go(self) -> None:
        """The service stops: no turn begins any more, and who only watches is sent away."""
        for opened in self._open.values():
            opened.live.let_go()
        self._stopping = True

    async def close(self, grace_s: float = 0.0) -> None:
        """End all turns; those under way may go on for `grace_s` seconds first."""
        self.sweeper.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*(opened.live.over() for opened in self._open.values()))
        await asyncio.gather(*(opened.live.cancel() for opened in self._open.values()))
        await asyncio.gather(*(opened.helpers.cancel() for opened in self._open.values()))

    async def _opened(self, asker: Asker, session: str) -> _Open:
        place = (asker.name, session)
        if place not in self._open:
            await asyncio.to_thread(self.store.info, asker.name, session)
        found = self._open.pop(place, None) or self._new(asker, session)
        if self._stopping:
            found.live.let_go()
        self._open[place] = found  # the last one used is the last one let go
        self._let_go()
        return found

    def _new(self, asker: Asker, session: str) -> _Open:
        live = Live(asker.name, session, self._take)
        record = self._recorder(live)
        return _Open(live, asker, asking_of(live, record, self.store, self.audit, self.allowed, self._questions))

    def _let_go(self) -> None:
        """Forget sessions that nobody is in, so that neither conversations nor keys stay in memory for ever."""
        for place, opened in list(self._open.items())[:-1]:
            if len(self._open) <= MOST_OPEN:
                return
            if not (opened.live.busy or opened.live.watched or opened.helpers.pending):
                del self._open[place]

    async def _take(self, text: str, turn: str, live: Live) -> None:
        opened = self._open[(live.owner, live.session)]
        models = ApiModels(self._http, self._base_url, opened.asker.secret)
        delegation = delegate(await models.candidates())
        log.info("delegation", delegation_mode=delegation.mode.value, why=delegation.why, session=live.session)
        keeper, events = await self._keeper(opened, delegation)
        record = self._recorder(live)
        specialist = delegation[AgentRole.SPECIALIST]
        packer = await self._packer(opened, specialist)
        router_packer = await self._packer(opened, delegation[AgentRole.ROUTER])
        worker = AskingRunner(self._runner_of(live.owner, opened.workspace), opened.asking, turn)
        embedder = self.embedder(opened.asker)
        changed = partial(self.knowledge.changed, live.owner)
        own = (
            MemoryTools(self.knowledge.memory, self.store, embedder, live.owner, live.session, changed, text),
            SkillTools(self.knowledge.skills, self.store, self.audit, live.owner, live.session, changed, text),
        )
        runner = SessionRunner(worker, packer.gate, opened.helpers, own)
        runner.request = text
        bearing = await self.knowledge.bearing(live.owner, text, embedder, packer.bounds, packer.gate, _notice(live))
        setting = Setting(
            session=live.session, models=models, delegation=delegation, runner=runner, keeper=keeper,
            router_packer=router_packer, specialist_packer=packer, record=record, emit=live.tell,
            injected=live.injected, workspace=opened.workspace, think=opened.think, workers=opened.helpers.status,
            count=self._count, recalled=bearing.recalled, ways=bearing.ways, events=events,
            suggest=partial(self.knowledge.suggested, live.owner), questions=opened.asking.counted,
            waited_s=lambda: opened.asking.waited_s, absent="" if worker.tools() else NO_WORKER,
        )  # fmt: skip
        runner.means = Means(models, specialist, packer, worker, helper_told(setting, turn), waited_s=setting.waited_s)
        try:
            await take_turn(setting, text, turn)
        except BaseException:
            opened.keeper = None  # what is on disk holds: the next turn reads it again
            raise
        finally:
            opened.asking.end()  # those of helpers that go on beside

    def embedder(self, asker: Asker) -> ApiEmbedder:
        """Return who makes vectors with the key of whoever asks."""
        return ApiEmbedder(self._base_url, self._http, asker.secret)

    def _recorder(self, live: Live) -> Record:
        async def record(*bodies: Body) -> None:
            await asyncio.to_thread(self._record, live.owner, live.session, bodies)

        return record

    def _read(self, owner: str, session: str) -> Conversation:
        return conversation_of(self.store.read(owner, session).records)

    def _record(self, owner: str, session: str, bodies: tuple[Body, ...]) -> None:
        self.store.append(owner, session, *bodies)
        for body in bodies:
            if isinstance(body, ToolCallBody):
                told = body.call.arguments
                if body.call.name in MEMORY_NAMES:  # what is forgotten shall not stand where nothing is removed
                    told = {name: f"{len(str(value))} characters" for name, value in told.items()}
                detail = {"tool": body.call.name, "arguments": told, "call": body.call.id}
                self.audit.add(owner, "tool.call", detail, session)
            elif isinstance(body, ToolResultBody):
                result = body.result
                detail = {"call": result.id, "outcome": result.outcome.value, "changed": list(result.changed)}
                self.audit.add(owner, "tool.result", detail, session)

    async def _keeper(self, opened: _Open, delegation: Delegation) -> tuple[Keeper, Sequence[ContextEvent]]:
        """Return the keeper of a session with its head, and what was to be said of a head that is new."""
        player = delegation[AgentRole.MAIN]
        slot = await self._slot(opened, player)
        events = await self._head(opened, slot, moved=opened.player not in (None, player))
        if opened.keeper is None:
            live = opened.live
            talk = await asyncio.to_thread(self._read, live.owner, live.session)
            opened.keeper = Keeper(
                owner=live.owner, slot=slot, mode=lambda: opened.chosen().mode, head=opened.head,
                blobs=self._blobs, summariser=self._summariser(opened, player),
                archive=SessionArchive(self.store, live.owner, live.session), conversation=talk,
                session_bytes=talk.size,
            )  # fmt: skip
        else:
            if opened.player != player:
                opened.keeper.move(slot)
            opened.keeper.change_head(opened.head, CHANGED)
        opened.player = player
        return opened.keeper, events

    async def _head(self, opened: _Open, slot: Slot, *, moved: bool) -> Sequence[ContextEvent]:
        """Make the head if there is none yet, or it is no longer true; it stays as it is for the rest of a session."""
        owner = opened.live.owner
        version = self.knowledge.version(owner)
        if opened.head_version == version and not moved:
            return ()
        limits = bounds(opened.chosen().mode, slot.context_tokens)
        gate = Gate(self._blobs, owner, slot.counter)
        opened.head, events = await self.knowledge.head(owner, MAIN_SYSTEM, limits, gate, _notice(opened.live))
        opened.head_version = version
        return events

    async def _packer(self, opened: _Open, player: Candidate) -> Packer:
        slot = await self._slot(opened, player)
        limits = bounds(opened.chosen().mode, slot.context_tokens)
        return Packer(limits, Gate(self._blobs, opened.live.owner, slot.counter), slot.capabilities)

    async def _slot(self, opened: _Open, player: Candidate) -> Slot:
        return await self._slots.slot(opened.asker.secret, player.name, _context_of(player))

    def _summariser(self, opened: _Open, player: Candidate) -> ChatSummariser:
        return ChatSummariser(self._base_url, self._http, opened.asker.secret, player.name, _context_of(player))


def _notice(live: Live) -> Notice:
    async def notice(text: str) -> None:
        await live.tell({"type": "notice", "text": text})

    return notice


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
