"""The Specialist: carries out what the Router decided, and goes on by itself where that was not enough.

In each round it thinks freely, and then writes one call (or that it is done) under the grammar of its tools. What it
wrote wrongly is corrected beside the history: the correction and the mistake are asked about once and never kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from pydantic import JsonValue

from roost.agent.calls import BadCallError, Found, check, find_calls, load
from roost.agent.delegation import Candidate
from roost.agent.guards import FORMAT_ANCHOR, Budget, Stop, Work, collapse_babble, fingerprint
from roost.agent.history import call_messages
from roost.agent.models import Ask, Models, function_of
from roost.agent.profiles import profile_of
from roost.agent.receipts import Receipt, missing, shown
from roost.agent.router import Action, Routed, by_words, filled, listed
from roost.agent.tool import Outcome, Permission, ToolCall, ToolResult, ToolRunner, ToolSpec
from roost.agent.work import Tell, Told, Worked
from roost.context.budget import BYTES_PER_TOKEN
from roost.context.messages import Call, Message, assistant, user
from roost.context.pack import Head, Packer
from roost.context.repair import without_thinking

THOUGHT_TOKENS = 200
BESIDE_SHARE = 8
"""A text beside the history may take one part of so many of what is free for the reply."""
WHOLE = Budget()
CORRECTIONS = 4
DENIALS = 3
"""How often in a turn the Specialist's word that it is done is not taken, because receipts say otherwise."""
SCRATCH_CHARACTERS = 4000

INSTRUCTIONS = """You carry out a task with tools, one call at a time. Look at what was done and what came of it.
Say in one or two sentences what is needed next, then make that call. When nothing more is needed, say so.

Tools:
"""
AGAIN = "[Called before with the same arguments; nothing changed since]"
NEXT = "Now write the next call, or that you are done."


class Specialist:
    """Works on one request at a time."""

    def __init__(
        self,
        models: Models,
        player: Candidate,
        runner: ToolRunner,
        tell: Tell,
        session: str,
        workspace: str | None = None,
        budget: Budget = WHOLE,
        facts: str = "",
        waited_s: Callable[[], float] = float,
    ) -> None:
        self._models = models
        self._player = player
        self._profile = profile_of(player.name)
        self._runner = runner
        self._tell = tell
        self._session = session
        self._workspace = workspace
        self._budget = budget
        self._facts = facts
        self._waited_s = waited_s
        self._tools = list(runner.tools())
        self._schemas = {spec.name: spec.parameters for spec in self._tools}
        self._work = Work()
        self._worked = Worked()
        self._scratch: dict[str, str] = {}
        self._number = 0
        self._denied = 0

    @property
    def so_far(self) -> Worked:
        """Return what was done until now: it stays done when the work cannot go on."""
        return self._worked

    async def work(
        self, request: str, routed: Routed, packer: Packer, turn: str, injected: Callable[[], Sequence[str]] = tuple
    ) -> Worked:
        """Carry out a request; `injected` gives what the user said meanwhile.

        Raises:
            RoostError: no model answers, or its prompt cannot be made to fit.
        """
        try:
            await self._rounds(request, routed, packer, turn, injected)
        finally:
            self._worked.missing = self._missing(request)
        return self._worked

    def _missing(self, request: str) -> list[str]:
        return missing(request, self._tools, self._worked.receipts)

    async def _rounds(
        self, request: str, routed: Routed, packer: Packer, turn: str, injected: Callable[[], Sequence[str]]
    ) -> None:
        end = time.monotonic() + self._budget.seconds - self._waited_s()
        if await self._pipeline(request, routed, packer, turn):
            return
        schemas: tuple[JsonValue, ...] = ()
        if self._profile.native_tools:
            schemas = tuple(function_of(spec) for spec in self._tools)
        head = Head("\n".join([INSTRUCTIONS + listed(self._tools), self._profile.form]).strip(), schemas)
        for _ in range(self._budget.rounds):
            if time.monotonic() > end + self._waited_s():  # the user's time is not the work's
                self._worked.stop = Stop.TIME
                return
            if self._worked.usage.prompt + self._worked.usage.completion >= self._budget.tokens:
                self._worked.stop = Stop.TOKENS
                return
            said = [user(f"[The user adds] {text}") for text in injected()]
            self._worked.messages += said
            found = await self._decide(request, head, packer)
            if found is None:
                return
            _, blocked = await self._call(found, turn)
            self._worked.stop = self._work.round_over(1, int(blocked))
            if self._worked.stop:
                return
        self._worked.stop = Stop.ROUNDS

    async def _pipeline(self, request: str, routed: Routed, packer: Packer, turn: str) -> bool:
        """Make the calls that the Router decided; say whether the work ends with them."""
        came: set[Outcome] = set()
        for action in routed.actions:
            came.add(await self._act(action, request, packer, turn))
            if self._worked.stop:
                break
        if routed.by == "model":
            if not self._worked.stop and self._through(request, came):
                return True
            if routed.actions and await self._by_words(request, turn):
                return True
        return self._worked.stop is not None

    def _through(self, request: str, came: AbstractSet[Outcome]) -> bool:
        """Say whether the pipeline was enough: all went well, or what was refused was not needed, as receipts show."""
        if came <= {Outcome.OK}:
            return not self._missing(request)
        return came <= {Outcome.OK, Outcome.REFUSED} and shown(request, self._tools, self._worked.receipts)

    async def _by_words(self, request: str, turn: str) -> bool:
        """Do what a request names in so many words and the pipeline left out; say whether that was all.

        A small model may write six actions for "Read a.txt", none of them of that file.
        """
        if not self._missing(request):
            return False
        for action in by_words(request, self._tools, "").actions:
            try:
                found = check(action.tool, action.arguments, self._schemas, "words")
            except BadCallError:
                return False  # words do not tell all of it
            spec = next(one for one in self._tools if one.name == found.name)
            said = spec.permission is not Permission.RUN or f"`{found.arguments.get('command')}`" in request
            if not said or self._work.seen[fingerprint(found.name, found.arguments)]:
                return False
            result, _ = await self._call(found, turn)
            if result.outcome is Outcome.OK and not self._missing(request):
                self._worked.stop = None
                return True
        return False

    async def _act(self, action: Action, request: str, packer: Packer, turn: str) -> Outcome:
        """Make one call of the pipeline; return what came of it."""
        try:
            arguments = filled(dict(action.arguments), self._scratch)
            found = check(action.tool, arguments, self._schemas, "router")
        except BadCallError as error:
            spec = next((one for one in self._tools if one.name == action.tool), None)
            mended = await self._arguments(spec, action, request, packer, str(error)) if spec else None
            if mended is None:
                return Outcome.REFUSED  # it was never made
            found = mended
        result, blocked = await self._call(found, turn)
        self._worked.stop = self._work.round_over(1, int(blocked))
        text = result.text
        if len(text) > SCRATCH_CHARACTERS:
            text = f"{text[:SCRATCH_CHARACTERS]}\n[… {len(text) - SCRATCH_CHARACTERS} characters more]"
        self._scratch[action.save_as] = text
        return result.outcome

    async def _arguments(
        self, spec: ToolSpec, action: Action, request: str, packer: Packer, problem: str
    ) -> Found | None:
        """Have the Specialist write the arguments of a call that the Router left incomplete."""
        known = short(json.dumps(action.arguments, ensure_ascii=False), packer.bounds.reply_tokens)
        told = f"Call {spec.name}: {spec.description} {problem} Known so far: {known}"
        pack = await packer.specialist(
            request, Head(INSTRUCTIONS + listed(self._tools)), tuple(self._worked.messages), facts=self._facts
        )
        messages = [*pack.messages, assistant(told), user("Write the arguments as one JSON object.")]
        reply = await self._models.ask(
            Ask(
                self._player.name,
                messages,
                packer.bounds.reply_tokens // 2,
                dict(spec.parameters),
                session=self._session,
            )
        )
        self._worked.usage += reply.usage
        try:
            return check(spec.name, reply.text, self._schemas, "arguments")
        except BadCallError:
            self._worked.counts.malformed += 1
            return None

    async def _decide(self, request: str, head: Head, packer: Packer) -> Found | None:
        """Return the next call; None where the Specialist is done, or cannot say anything that makes sense."""
        pack = await packer.specialist(request, head, tuple(self._worked.messages), facts=self._facts)
        self._worked.rounds += 1
        room = packer.bounds.reply_tokens  # for the answer, and for what stands beside the history
        thought = await self._models.ask(
            Ask(
                self._player.name,
                pack.messages,
                room // 2 if self._profile.thinks else min(THOUGHT_TOKENS, room // 4),
                tools=self._tools if self._profile.native_tools else (),
                session=f"{self._session}-specialist",
            )
        )
        self._worked.usage += thought.usage
        found = self._native(thought.calls) or next(iter(find_calls(thought.text, self._schemas)), None)
        if found and not self._made(found):
            return found
        words = short(collapse_babble(without_thinking(thought.text)).strip(), room)
        opening = (assistant(words or "I look at what is needed."), user(NEXT))
        beside: tuple[Message, ...] = ()
        for _ in range(CORRECTIONS + 1):
            # A mistake and its correction are shown once, and never become part of the history.
            reply = await self._models.ask(
                Ask(self._player.name, [*pack.messages, *opening, *beside], room // 2, self._decision_schema(),
                    session=f"{self._session}-specialist")
            )  # fmt: skip
            self._worked.usage += reply.usage
            try:
                found = self._decision(reply.text)
            except BadCallError as error:
                self._worked.counts.malformed += 1
                beside = (assistant(short(reply.text, room)), user(f"That was wrong: {error} {FORMAT_ANCHOR}"))
                continue
            if found is None:
                open_ends = self._missing(request)
                if not open_ends:
                    return None
                if self._denied >= DENIALS:
                    self._worked.stop = Stop.UNDONE
                    return None
                self._denied += 1
                told = short("; ".join(open_ends), room)
                beside = (assistant('{"done": true}'), user(f"It is not done: {told}. {NEXT}"))
            elif self._made(found):
                beside = (
                    assistant(short(reply.text, room)),
                    user(f"That call was made already and its result stands above. {NEXT}"),
                )
            else:
                return found
        if found:
            return found  # it wants just that: it is answered from the result, and counted
        await self._tell(Told(note="The specialist wrote nothing that could be understood."))
        self._worked.stop = self._worked.stop or Stop.POLLUTED
        return None

    def _made(self, found: Found) -> bool:
        return self._work.known(fingerprint(found.name, found.arguments)) is not None

    def _native(self, calls: Sequence[Call]) -> Found | None:
        for call in calls:
            try:
                return check(call.name, call.arguments, self._schemas, "native")
            except BadCallError:
                continue
        return None

    def _decision(self, text: str) -> Found | None:
        try:
            document = load(text)
        except ValueError:
            document = None
        if isinstance(document, dict) and document.get("done") is True:
            self._worked.summary = str(document.get("summary") or "")
            return None
        if isinstance(document, dict):
            return check(document.get("tool"), document.get("arguments"), self._schemas, "grammar")
        found = find_calls(text, self._schemas)
        if not found:
            raise BadCallError("It is no JSON object.")
        return found[0]

    def _decision_schema(self) -> dict[str, JsonValue]:
        done: JsonValue = {
            "type": "object", "properties": {"done": {"const": True}, "summary": {"type": "string"}},
            "required": ["done"], "additionalProperties": False,
        }  # fmt: skip
        calls: list[JsonValue] = [
            {
                "type": "object",
                "properties": {"tool": {"const": spec.name}, "arguments": dict(spec.parameters)},
                "required": ["tool", "arguments"],
                "additionalProperties": False,
            }
            for spec in self._tools
        ]
        return {"anyOf": [*calls, done]}

    async def _call(self, found: Found, turn: str) -> tuple[ToolResult, bool]:
        """Make a call, or answer it from what is known; say whether it was blocked."""
        counts = self._worked.counts
        counts.asked += 1
        counts.repaired += bool(found.repairs)
        mark = fingerprint(found.name, found.arguments)
        self._work.asked(mark)
        self._number += 1
        call = ToolCall(
            id=f"{turn}-{self._number}", name=found.name, arguments=found.arguments, session=self._session,
            workspace=self._workspace,
        )  # fmt: skip
        if known := self._work.known(mark):
            self._work.blocked()
            counts.blocked += 1
            again = known.model_copy(update={"id": call.id, "text": f"{AGAIN}\n{known.text}"})
            await self._tell(Told(call, again, "answered from its result"))
            self._keep(call, again)
            return again, True
        await self._tell(Told(call))
        spec = next(one for one in self._tools if one.name == found.name)
        result = await self._runner.run(call)
        self._work.ran(mark, spec.permission, result)
        counts.run += 1
        blocked = result.outcome == Outcome.REFUSED
        counts.blocked += blocked
        self._worked.receipts.append(Receipt(call, spec.permission, result))
        await self._tell(Told(call, result))
        self._keep(call, result)
        return result, blocked

    def _keep(self, call: ToolCall, result: ToolResult) -> None:
        self._worked.messages += call_messages(call, result)


def short(text: str, room: int) -> str:
    """Return a text as it may stand beside the history, where `room` tokens are free for the reply."""
    most = max(room // BESIDE_SHARE, 16) * BYTES_PER_TOKEN // 2
    return text if len(text) <= most else f"{text[:most]}…"
