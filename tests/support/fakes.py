"""Scripted stand-ins for what cannot be made to fail on demand: a model server, and Nomad's Task API.

They say nothing about how the real ones behave beyond what is written here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from aiohttp import web

Mode = Literal[
    "ready",
    "loading",
    "stuck",
    "drop",
    "drop-late",
    "die-mid-event",
    "die-after-end",
    "report",
    "truncate",
    "error",
    "slow",
    "linger",
    "hang",
    "silent",
]
WORDS = ("The", " capital", " of", " France", " is", " Paris", ".")
USAGE = {"prompt_tokens": 27, "completion_tokens": len(WORDS), "total_tokens": 27 + len(WORDS)}


@dataclass
class FakeEngine:
    """A model server that does what `mode` says.

    stuck: /health says ok, nothing else answers. drop: closes the connection on a chat. die-mid-event: breaks off
    inside the third event. truncate: ends a stream cleanly without its end. error: answers a chat with `error`.
    hang: no chat is ever answered, all else is. silent: nothing is answered, not even /health.
    slow: sends one event, then waits for `go`. linger: sends all, but ends the connection only after `go`.
    """

    model: str = "tiny"
    mode: Mode = "ready"
    key: str = "engine-key"
    error: tuple[int, dict[str, object]] = (500, {"error": {"message": "out of memory", "type": "server_error"}})
    message: dict[str, object] = field(default_factory=lambda: {"role": "assistant", "content": "".join(WORDS)})
    all_slots_busy: bool = False
    slots: list[dict[str, object]] | None = None  # what /slots says, if it shall be more than whether it works
    slot_files: dict[str, int] | None = None  # saved slots by file name, None: started without a folder for them
    slot_actions: list[str] = field(default_factory=list)
    adapters: tuple[str, ...] = ()
    file_bytes: int | None = None  # of its model; servers that say so and agree can go on for each other
    template: Literal["", "plain", "changes"] = ""  # whether it shows its prompts, and changes the text so far
    dies_after: int = 2  # events, in the modes that break off
    says_why: bool = False  # whether the last event of a stream has a reason why it ended
    flood: bool = False  # a stream never ends, and comes as fast as it is taken
    context: int = 2048
    parameters: int | None = None
    props: dict[str, object] = field(default_factory=dict)  # what /props says beyond its context and slots
    answers: dict[str, tuple[int, dict[str, object]]] = field(default_factory=dict)  # of further routes, by path
    counter: bool = False  # whether it counts tokens: one for each word
    counted: list[bytes] = field(default_factory=list)
    asked: list[tuple[str, bytes]] = field(default_factory=list)  # path and body of what went to further routes
    go: asyncio.Event = field(default_factory=asyncio.Event)
    chats: list[dict[str, object]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)  # of chats, names in lower case
    metrics: str = ""  # what /metrics says; empty: it has no such page
    scrapes: int = 0
    canaries: int = 0
    left: int = 0  # clients that went away during a chat
    port: int = 0
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        """Listen; on the same port as before if `port` says so."""
        app = web.Application(client_max_size=32 << 20)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/props", self._props)
        app.router.add_get("/slots", self._slots)
        app.router.add_post("/slots/{id}", self._slot_action)
        app.router.add_get("/lora-adapters", self._lora)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/chat/completions/input_tokens", self._count)
        app.router.add_post("/apply-template", self._apply_template)
        app.router.add_post("/{path:.*}", self._other)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def _gate(self, request: web.Request) -> web.Response | None:
        if self.mode == "loading":
            return web.json_response({"error": {"message": "Loading model", "type": "unavailable_error"}}, status=503)
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "Invalid API Key"}}, status=401)
        return None

    async def _wait_if_stuck(self) -> None:
        if self.mode in ("stuck", "silent"):
            await asyncio.Event().wait()

    async def _health(self, _request: web.Request) -> web.Response:
        if self.mode == "silent":
            await asyncio.Event().wait()
        if self.mode == "loading":
            return web.json_response({"error": {"message": "Loading model"}}, status=503)
        return web.json_response({"status": "ok"})

    async def _models(self, request: web.Request) -> web.Response:
        await self._wait_if_stuck()
        document = {
            "object": "list",
            "data": [{"id": self.model, "meta": {"n_ctx": 4096, "n_params": self.parameters, "size": self.file_bytes}}],
        }
        return self._gate(request) or web.json_response(document)

    async def _props(self, request: web.Request) -> web.Response:
        document = {"total_slots": 2, "default_generation_settings": {"n_ctx": self.context}, **self.props}
        return self._gate(request) or web.json_response(document)

    async def _slots(self, request: web.Request) -> web.Response:
        await self._wait_if_stuck()
        slots = [{"id": number, "is_processing": self.all_slots_busy} for number in range(2)]
        return self._gate(request) or web.json_response(slots if self.slots is None else self.slots)

    async def _slot_action(self, request: web.Request) -> web.Response:
        await self._wait_if_stuck()
        name, action = (await request.json())["filename"], request.query["action"]
        refusal = self._gate(request)
        if refusal or self.slot_files is None:
            return refusal or web.json_response({"error": {"message": "no --slot-save-path"}}, status=501)
        self.slot_actions.append(f"{action} {request.match_info['id']}")
        if action == "save":
            found = [slot for slot in self.slots or () if str(slot["id"]) == request.match_info["id"]]
            self.slot_files[name] = int(str(found[0]["n_prompt_tokens"]))
            return web.json_response({"n_saved": self.slot_files[name]})
        if name not in self.slot_files:
            return web.json_response({"error": {"message": "Unable to restore slot"}}, status=400)
        return web.json_response({"n_restored": self.slot_files[name]})

    async def _lora(self, request: web.Request) -> web.Response:
        document = [{"id": n, "path": f"/l/{name}.gguf", "scale": 0.0} for n, name in enumerate(self.adapters)]
        return self._gate(request) or web.json_response(document)

    async def _metrics(self, request: web.Request) -> web.Response:
        await self._wait_if_stuck()
        self.scrapes += 1
        if not self.metrics:
            return web.json_response({"error": {"message": "This server does not support metrics"}}, status=501)
        return self._gate(request) or web.Response(text=self.metrics)

    async def _count(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not self.counter:
            return web.json_response({"error": {"message": "File Not Found"}}, status=404)
        self.counted.append(body)
        words = [word for message in json.loads(body)["messages"] for word in message["content"].split()]
        return self._gate(request) or web.json_response({"input_tokens": len(words)})

    async def _apply_template(self, request: web.Request) -> web.Response:
        chat = await request.json()
        if not self.template:
            return web.json_response({"error": {"message": "File Not Found"}}, status=404)
        so_far = chat["messages"].pop()["content"] if chat.get("continue_final_message") else ""
        prompt = "".join(f"<{message['role']}>{message['content']}" for message in chat["messages"])
        text = so_far.lower() if self.template == "changes" else so_far
        return self._gate(request) or web.json_response({"prompt": f"{prompt}<assistant>{text}"})

    async def _other(self, request: web.Request) -> web.Response:
        body = await request.read()
        await self._wait_if_stuck()
        status, document = self.answers.get(request.path, (404, {"error": {"message": "File Not Found"}}))
        if status != 404:
            self.asked.append((request.path, body))
        if self.mode == "drop" and b'"Hi"' not in body:  # which is what the probe asks
            self._abort(request)
        return self._gate(request) or web.json_response(document, status=status)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        chat = json.loads(body)
        refusal = self._gate(request)
        if refusal:
            return refusal
        if chat.get("max_tokens") == 1:
            self.canaries += 1
        else:
            self.chats.append(chat)
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
        await self._wait_if_stuck()
        if self.mode == "hang":
            await asyncio.Event().wait()
        if self.mode == "drop" and chat.get("max_tokens") != 1:
            self._abort(request)
        if self.mode == "drop-late" and chat.get("max_tokens") != 1:
            await self.go.wait()
            self._abort(request)
        if self.mode == "error" and chat.get("max_tokens") != 1:
            return web.json_response(self.error[1], status=self.error[0])
        if chat.get("stream"):
            so_far = chat["messages"][-1]["content"] if chat.get("continue_final_message") else ""
            said = next(n for n in range(len(WORDS) + 1) if "".join(WORDS[:n]) == so_far)
            return await self._stream(request, said, include_usage="stream_options" in chat)
        choice = {"index": 0, "finish_reason": "stop", "message": self.message}
        return web.json_response({**self._head("chat.completion"), "choices": [choice], "usage": USAGE})

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": self.model}

    def _abort(self, request: web.Request) -> None:
        if request.transport:
            request.transport.abort()

    async def _stream(self, request: web.Request, said: int, *, include_usage: bool) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        head = self._head("chat.completion.chunk")
        try:
            for number, word in enumerate(WORDS[said:]):
                why = "stop" if self.says_why and word == WORDS[-1] else None
                choice = {"index": 0, "finish_reason": why, "delta": {"content": word}}
                event = b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"
                if self.mode == "die-mid-event" and number == self.dies_after:
                    await answer.write(event[:20])
                    self._abort(request)
                    return answer
                if self.mode in ("truncate", "report") and number == self.dies_after:
                    said_last = f"data: {json.dumps(self.error[1])}\n\n" if self.mode == "report" else ""
                    await answer.write(said_last.encode())
                    return answer
                await answer.write(event)
                while self.flood:
                    await answer.write(event * 100)
                if self.mode == "slow" and number == 0:
                    await self.go.wait()
            if include_usage:
                left = len(WORDS) - said
                usage = {"prompt_tokens": 27 + said, "completion_tokens": left, "total_tokens": 27 + len(WORDS)}
                last = json.dumps({**head, "choices": [], "usage": usage})
                await answer.write(f"data: {last}\n\n".encode())
            await answer.write(b"data: [DONE]\n\n")
            if self.mode == "die-after-end":
                await asyncio.sleep(0.05)  # its end is on the way by then
                self._abort(request)
            if self.mode == "linger":
                await self.go.wait()
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        return answer


@asynccontextmanager
async def fake_engine(**script: object) -> AsyncIterator[FakeEngine]:
    """Run a scripted model server; `script` sets its fields."""
    engine = FakeEngine()
    for name, value in script.items():
        setattr(engine, name, value)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@dataclass
class FakeJob:
    """A model server's job: how many it shall run, its service's tags, and where it answers when it runs."""

    count: int
    address: tuple[str, int]
    tags: list[str]
    version: int = 1
    running: int = 0
    stop: bool = False


@dataclass
class FakeNomad:
    """Nomad's services and jobs with blocking queries, scaling and stopping allocations, on a Unix socket.

    A job that is scaled up is registered at once, unless `starts` says no; one scaled down is gone at once.
    `refusal` is the answer to a command, if it shall fail.
    """

    socket: Path
    token: str = "identity"
    index: int = 10
    services: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    blocked: int = 0  # queries that are waiting now
    refused: int = 0
    failing: bool = False
    jobs: dict[str, FakeJob] = field(default_factory=dict)
    scaled: list[tuple[str, int]] = field(default_factory=list)
    stopped_allocations: list[str] = field(default_factory=list)
    refusal: str = ""
    starts: bool = True
    variables: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)  # path -> index, items
    _round: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on the socket."""
        app = web.Application()
        app.router.add_get("/v1/services", self._list)
        app.router.add_get("/v1/service/{name}", self._one)
        app.router.add_get("/v1/jobs", self._jobs)
        app.router.add_get("/v1/job/{name}", self._job)
        app.router.add_put("/v1/job/{name}/scale", self._scale)
        app.router.add_put("/v1/allocation/{id}/stop", self._stop_allocation)
        app.router.add_get("/v1/var/{path:.*}", self._variable)
        app.router.add_put("/v1/var/{path:.*}", self._set_variable)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        """Go away, the socket too."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None
        self.socket.unlink(missing_ok=True)

    def set(self, name: str, *addresses: tuple[str, int], index: int | None = None) -> None:
        """Register addresses under a service's name; none removes it."""
        if addresses:
            self.services[name] = list(addresses)
        else:
            self.services.pop(name, None)
        self.index = index if index is not None else self.index + 1
        self._wake()

    def plan(self, name: str, count: int, address: tuple[str, int], *tags: str) -> None:
        """Register a model server's job, and its service if it runs."""
        self.jobs[name] = FakeJob(count, address, list(tags))
        self._run(name)

    def _run(self, name: str) -> None:
        job = self.jobs[name]
        job.running = job.count if self.starts else 0
        self.set(name, *([job.address] * job.running))

    def end_waiting(self) -> None:
        """Answer the waiting queries as if their time were over."""
        self._round += 1
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _ready(self, request: web.Request) -> web.Response | None:
        if request.headers.get("X-Nomad-Token") != self.token:
            self.refused += 1
            return web.Response(status=403, text="Permission denied")
        if self.failing:
            return web.Response(status=500, text="No cluster leader")
        seen, round_ = int(request.query.get("index", "0")), self._round
        self.blocked += 1
        try:
            while seen and seen >= self.index and round_ == self._round:
                await self._changed.wait()
        finally:
            self.blocked -= 1
        return None

    def _answer(self, document: object) -> web.Response:
        return web.json_response(document, headers={"X-Nomad-Index": str(self.index)})

    async def _list(self, request: web.Request) -> web.Response:
        refusal = await self._ready(request)
        stubs = [{"ServiceName": name, "Tags": self._tags(name)} for name in self.services]
        return refusal or self._answer([{"Namespace": "default", "Services": stubs}] if stubs else [])

    async def _one(self, request: web.Request) -> web.Response:
        refusal = await self._ready(request)
        name = request.match_info["name"]
        tags, found = self._tags(name), self.services.get(name, [])
        about = {"Tags": tags, "JobID": name, "AllocID": f"allocation of {name}"}
        document = [{"Address": address, "Port": port, **about} for address, port in found]
        return refusal or self._answer(document)

    def _tags(self, name: str) -> list[str]:
        return self.jobs[name].tags if name in self.jobs else self.tags

    async def _jobs(self, request: web.Request) -> web.Response:
        refusal = await self._ready(request)
        stubs = [
            {
                "ID": name,
                "Stop": job.stop,
                "JobModifyIndex": job.version,
                "JobSummary": {"Summary": {"engine": {"Running": job.running, "Starting": 0}}},
            }
            for name, job in self.jobs.items()
            if name.startswith(request.query.get("prefix", ""))
        ]
        return refusal or self._answer(stubs)

    async def _job(self, request: web.Request) -> web.Response:
        refusal = await self._ready(request)
        job = self.jobs[request.match_info["name"]]
        group = {"Name": "engine", "Count": job.count, "Services": [{"Tags": job.tags}]}
        return refusal or self._answer({"ID": request.match_info["name"], "TaskGroups": [group]})

    async def _scale(self, request: web.Request) -> web.Response:
        name, body = request.match_info["name"], await request.json()
        refusal = await self._ready(request)
        if refusal or self.refusal:
            return refusal or web.Response(status=400, text=self.refusal)
        assert body["Target"] == {"Group": "engine"}
        self.scaled.append((name, body["Count"]))
        self.jobs[name].count = body["Count"]
        self.jobs[name].version += 1
        self._run(name)
        return self._answer({"JobModifyIndex": self.jobs[name].version})

    async def _variable(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        refusal = await self._ready(request)
        if refusal or path not in self.variables:
            return refusal or web.Response(status=404, text="variable not found")
        index, items = self.variables[path]
        return self._answer({"Path": path, "ModifyIndex": index, "Items": items})

    async def _set_variable(self, request: web.Request) -> web.Response:
        path, body = request.match_info["path"], await request.json()
        refusal = await self._ready(request)
        if refusal or self.refusal:
            return refusal or web.Response(status=403, text=self.refusal)
        if int(request.query["cas"]) != self.variables.get(path, (0, {}))[0]:
            return web.json_response({"ModifyIndex": self.index}, status=409)
        self.index += 1
        self.variables[path] = (self.index, body["Items"])
        return self._answer({"ModifyIndex": self.index})

    async def _stop_allocation(self, request: web.Request) -> web.Response:
        refusal = await self._ready(request)
        if refusal or self.refusal:
            return refusal or web.Response(status=403, text=self.refusal)
        self.stopped_allocations.append(request.match_info["id"])
        return self._answer({"EvalID": "1"})
