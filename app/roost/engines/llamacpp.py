"""Client of llama.cpp's `llama-server`, and of servers that speak the same OpenAI-like HTTP without its extras."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import PurePath
from typing import Annotated
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from roost.engines.base import Load, Report, Skill, SlotsError, State
from roost.engines.http_server import KEY_REFUSED, HttpServer, Pace, ProbeError, StuckError
from roost.engines.llama_continue import TEMPLATE, as_chat, differs, fingerprint, needs_template, read_prompt
from roost.engines.llama_count import COMPLETIONS, COUNTERS, IGNORED, prompts, read_count, to_tokenize
from roost.engines.llama_slots import OVER_TOKENS, WORTH_TOKENS, Motion, Progress, Saved, Slot, SlotList
from roost.engines.prometheus import read_samples, total
from roost.engines.wire import Wire

STUCK = "it accepts connections but did not produce a token within {:.0f} s"
STALLED = "its slots are at work and made no progress for {:.0f} s"
LOAD_EVERY_S = 2.0
LOAD_TIMEOUT_S = 1.0  # a server in the middle of a long prompt answers later; then what was known of its load stays
NOT_OFFERED = frozenset({404, 501})
# The shortest request that shows whether a server has a skill. One that has not says so without any work.
TRIALS: dict[Skill, tuple[str, dict[str, object]]] = {
    Skill.EMBED: ("/v1/embeddings", {"input": "Hi"}),
    Skill.RERANK: ("/v1/rerank", {"query": "Hi", "documents": ["Hi"]}),
}


class _Meta(BaseModel):
    model_config = ConfigDict(extra="allow")

    n_ctx: int | None = None
    n_params: int | None = None


def _meta_or_empty(value: object) -> object:
    return {} if value is None else value


class _Model(BaseModel):
    id: str
    meta: Annotated[_Meta, BeforeValidator(_meta_or_empty)] = Field(default_factory=_Meta)


class _Models(BaseModel):
    data: list[_Model] = Field(min_length=1)


class _Defaults(BaseModel):
    n_ctx: int | None = None


class _Modalities(BaseModel):
    vision: bool | None = None


class _Template(BaseModel):
    supports_tools: bool | None = None


class _Props(BaseModel):
    model_path: str = ""
    chat_template: str = ""
    build_info: str = ""
    total_slots: int | None = None
    default_generation_settings: _Defaults = Field(default_factory=_Defaults)
    modalities: _Modalities = Field(default_factory=_Modalities)
    chat_template_caps: _Template = Field(default_factory=_Template)


class _Adapter(BaseModel):
    id: int
    path: str


ADAPTERS = TypeAdapter(list[_Adapter])


class LlamaServer(HttpServer):
    """One `llama-server`.

    `/health` is cheap and can say ok while the server is stuck, so a real one-token request is made when the server
    is first seen, after each time it was not ready, and every `canary_every_s` seconds in which it proved nothing.
    While its slots are at work their progress is the proof instead: a slow server is not a stuck one.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        key: Callable[[], str],
        pace: Pace | None = None,
        *,
        tls: ssl.SSLContext | bool = True,
        allowed: Collection[str] = (),
        wire: Wire | None = None,
        keeps_slots: bool = False,
    ) -> None:
        super().__init__(base_url, session, key, pace, tls=tls, allowed=allowed, wire=wire)
        self._keeps_slots = keeps_slots
        self._progress = Progress(self._pace.stall_s)
        self._identity = ""  # of model, build and context: what saved slots depend on
        self._shown: set[Skill] = set()  # beside generating text
        self._load, self._load_read = Load(), float("-inf")

    async def look(self, *, busy: bool) -> Report:
        """Ask it whether it is loaded, what it is, and now and then for a real token."""
        status, _ = await self.get("/health")
        if status == 503:
            return Report(State.LOADING, reason="it is loading its model")
        if status not in (200, 404):  # 404: a server without this page
            raise ProbeError(f"its /health answered {status}")
        known = self._described
        described = known or await self._describe()
        if time.monotonic() - self._last_proof > self._pace.canary_every_s:
            asked_at = time.monotonic()
            if await self._prove(described, busy=busy):
                self._last_proof = max(self._last_proof, asked_at)
        described = replace(described, load=await self._newest_load())
        self._described = described
        return described

    async def _newest_load(self) -> Load:
        """Return what its slots and metrics say, asked for now and then; what it does not say in time stays as it was.

        Both are answered between two batches only, so a server at work may take its time.
        """
        now = time.monotonic()
        if now - self._load_read < LOAD_EVERY_S:
            return self._load
        self._load_read = now
        try:
            async with asyncio.timeout(min(LOAD_TIMEOUT_S, self._pace.health_timeout_s)):
                slots = await self._slots(LOAD_TIMEOUT_S)
                status, body = await self.get("/metrics", LOAD_TIMEOUT_S)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return self._load
        waiting = total(read_samples(body), "llamacpp:requests_deferred") if status == 200 else None
        if slots is not None:
            self._load = Load(
                running=len(slots.working()),
                waiting=None if waiting is None else int(waiting),
                cache_used=slots.used(),
            )
        return self._load

    async def _describe(self) -> Report:
        status, body = await self.get("/v1/models")
        if status == 401:
            raise ProbeError(KEY_REFUSED)
        if status != 200:
            raise ProbeError(f"its /v1/models answered {status}")
        models = _Models.model_validate_json(body).data
        about = models[0].meta
        report = Report(
            State.READY, models=tuple(model.id for model in models), context=about.n_ctx, parameters=about.n_params
        )
        status, body = await self.get("/props")
        if status == 200:
            props = _Props.model_validate_json(body)
            context = props.default_generation_settings.n_ctx or report.context
            report = replace(report, context=context, slots=props.total_slots, version=props.build_info)
            report = replace(report, sees=props.modalities.vision, calls=props.chat_template_caps.supports_tools)
            host = urlsplit(self._base_url).hostname or ""
            known = fingerprint(about.model_dump(), props.model_path, props.chat_template, host)
            report = replace(report, fingerprint=known)
            self._identity = f"{props.model_path} {props.build_info} {context} {report.models[0]}"
        status, body = await self.get("/lora-adapters")
        if status == 200:
            loaded = sorted(ADAPTERS.validate_json(body), key=lambda adapter: adapter.id)
            report = replace(report, adapters=tuple(PurePath(adapter.path).stem for adapter in loaded))
        return replace(report, lacks=await self._lacks(report.models[0]))

    async def _lacks(self, model: str) -> frozenset[Skill]:
        """Return what the server says it cannot do; of one that is too busy to answer that is not known."""
        lacks: set[Skill] = set()
        self._shown = set()
        for skill, (path, trial) in TRIALS.items():
            try:
                status, _ = await self.post(path, json.dumps({"model": model, **trial}).encode())
            except TimeoutError:
                continue
            (self._shown if status == 200 else lacks).add(skill)
        return frozenset(lacks)

    async def _prove(self, report: Report, *, busy: bool) -> bool:
        """Make the server's main loop answer: by its slots while they are at work, else by one token.

        Returns whether that proved something; while slots stand still for less than `stall_s` nothing is proved yet.

        Raises:
            StuckError: it did not answer in time, or its slots do not move.
            ProbeError: it answered with an error.
        """
        began = time.monotonic()
        stuck = StuckError(STUCK.format(self._pace.canary_timeout_s))
        try:
            slots = await self._slots(self._pace.canary_timeout_s)
        except TimeoutError:
            if self._last_proof >= began:  # a client got something meanwhile
                return True
            raise stuck from None
        if slots is None:
            if busy:
                return True  # without a list of slots our canary would only queue behind the request it works on
        elif (motion := self._motion(slots)) is not Motion.UNKNOWN:
            return motion is Motion.MOVED
        elif slots.all_busy() or self._must_spare(slots):
            return True
        try:
            await self._ask_a_token(report)
        except TimeoutError:
            if self._last_proof < began:
                if await self._works():
                    return False
                raise stuck from None
        return True

    async def _works(self) -> bool:
        """Say whether something is at work: what the server does with that tells more than our canary."""
        try:
            slots = await self._slots(self._pace.health_timeout_s)
        except TimeoutError:
            return False
        return slots is not None and self._motion(slots) is not Motion.UNKNOWN

    def _motion(self, slots: SlotList) -> Motion:
        motion = self._progress.look(slots.slots, time.monotonic())
        if motion is Motion.STALLED:
            raise StuckError(STALLED.format(self._pace.stall_s))
        return motion

    def _must_spare(self, slots: SlotList) -> bool:
        """Say whether a canary would take the only slot from the conversation that shall be kept there."""
        return self._keeps_slots and len(slots.slots) == 1 and slots.slots[0].holds() >= WORTH_TOKENS

    async def _slots(self, timeout_s: float) -> SlotList | None:
        status, body = await self.get("/slots", timeout_s)
        return SlotList.read(body) if status == 200 else None

    async def _ask_a_token(self, report: Report) -> None:
        """Ask for the least that this model can do: an encoder has no next token to give."""
        path, canary = next(
            (trial for skill, trial in TRIALS.items() if skill in self._shown),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}),
        )
        body = json.dumps({"model": report.models[0], "temperature": 0, **canary}).encode()
        status, _ = await self.post(path, body, self._pace.canary_timeout_s)
        if status != 200:
            raise ProbeError(f"it answered a one-token request with {status}")

    async def count(self, path: str, body: bytes) -> int | None:
        """Return how many tokens a prompt has; see `Engine.count`."""
        if path == COMPLETIONS:
            counts = [
                prompt if isinstance(prompt, int) else await self._counted("/tokenize", to_tokenize(prompt))
                for prompt in prompts(body)
            ]
            known = [count for count in counts if count is not None]
            return max(known) if known and len(known) == len(counts) else None
        counter = COUNTERS.get(path)
        return await self._counted(counter, body) if counter else None

    async def _counted(self, path: str, body: bytes) -> int | None:
        status, answer = await self.post(path, body)
        return read_count(answer) if status == 200 else None

    async def why_not_continue(self, path: str, before: bytes, after: bytes, text: str) -> str:
        """Say why an answer cannot go on here; see `Continues.why_not_continue`."""
        if not needs_template(path):
            return ""
        return differs(await self._prompt(path, before), await self._prompt(path, after), text)

    async def _prompt(self, path: str, body: bytes) -> str | None:
        """Return the prompt that the server's template makes of a request, if it says."""
        chat = as_chat(path, body)
        if chat is None:
            return None
        status, answer = await self.post(TEMPLATE, chat)
        return read_prompt(answer) if status == 200 else None

    def ignores(self, path: str) -> frozenset[str]:
        """Return the fields that the server does not heed; see `Engine.ignores`."""
        return IGNORED.get(path, frozenset())

    async def save_slots(self) -> int:
        """Save the idle slots that hold a conversation; see `Engine.save_slots`.

        With adapters nothing is saved: what a slot knows depends on the one that was in use, which a file does not say.
        """
        if self._described is not None and self._described.adapters:
            return 0
        return sum(
            [
                (await self._slot_action("save", slot)).n_saved
                for slot in await self._slots_now()
                if slot.holds() >= WORTH_TOKENS
            ]
        )

    async def restore_slots(self) -> int:
        """Restore what was saved; see `Engine.restore_slots`."""
        return sum(
            [
                (await self._slot_action("restore", slot)).n_restored
                for slot in await self._slots_now()
                if not slot.is_processing and slot.holds() <= OVER_TOKENS
            ]
        )

    async def _slots_now(self) -> list[Slot]:
        try:
            slots = await self._slots(self._pace.health_timeout_s)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise SlotsError(f"its slots cannot be listed: {str(error) or type(error).__name__}") from None
        return slots.slots if slots and self._identity else []

    async def _slot_action(self, action: str, slot: Slot) -> Saved:
        """Save or restore one slot, in a file that only the same model, build and context ever reads.

        Raises:
            SlotsError: it could not be done. A file that is not there is no failure of a restore.
        """
        key = hashlib.sha256(self._identity.encode()).hexdigest()[:16]
        url = f"{self._base_url}/slots/{slot.id}?action={action}"
        try:
            async with self._session.post(
                url,
                json={"filename": f"{key}-{slot.id}.bin"},
                headers=self.headers(),
                ssl=self._tls,
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
                if answer.status in NOT_OFFERED or (action == "restore" and answer.status == 400):
                    return Saved()
                if answer.status != 200:
                    raise SlotsError(f"slot {slot.id}: it answered {answer.status}")
                return Saved.model_validate_json(body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SlotsError(f"slot {slot.id}: {str(error) or type(error).__name__}") from None


class LlamaCppPythonServer(LlamaServer):
    """One `roost.engines.llama_cpp_python_server`: it works on one request at a time and has no list of slots."""

    async def _prove(self, report: Report, *, busy: bool) -> bool:
        if not busy:  # a canary would only queue behind the request it works on
            try:
                await self._ask_a_token(report)
            except TimeoutError:
                raise StuckError(STUCK.format(self._pace.canary_timeout_s)) from None
        return True
