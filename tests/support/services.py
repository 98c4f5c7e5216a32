"""Servers of other kinds, scripted from their documentation: Ollama, LM Studio, vLLM, OpenAI's, Anthropic's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KEY = "sk-of-the-tests-0123456789"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


@dataclass
class Service:
    """A scripted server. `seen` are the requests that came: method, path, JSON body."""

    key: str = ""
    seen: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)
    broken: bool = False  # answers 500 to everything that works
    port: int = 0

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, path: str) -> list[dict[str, object]]:
        """Return the bodies that came to a path."""
        return [body for _, asked, body in self.seen if asked == path]

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return what answers what."""
        raise NotImplementedError

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to who has no key."""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", "")
        if self.key and given != self.key:
            said = {"message": f"Incorrect API key provided: {given}", "type": "invalid_request_error"}
            return web.json_response({"error": said}, status=401)
        return None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer by the routes."""
        raw = await request.read()
        self.seen.append((request.method, request.path, json.loads(raw) if raw else {}))
        handler = self.routes().get((request.method, request.path))
        if refused := self.refusal(request):
            return refused
        if handler is None:
            return web.json_response({"error": {"message": "not found"}}, status=404)
        if self.broken and request.method == "POST":
            return web.json_response({"error": {"message": "broken"}}, status=500)
        return await handler(request)


def document(content: object, status: int = 200) -> Handler:
    """Return a handler that answers a document."""

    async def handle(_request: web.Request) -> web.Response:
        if isinstance(content, str):
            return web.Response(text=content, status=status)
        return web.json_response(content, status=status)

    return handle


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer a chat of OpenAI's, streamed too."""
    body = await request.json()
    head = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "Paris it is"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return web.json_response({**head, "object": "chat.completion", "choices": choices, "usage": USAGE})
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for word in ("Paris", " it", " is"):
        choices = [{"index": 0, "delta": {"content": word}, "finish_reason": None}]
        event = {**head, "object": "chat.completion.chunk", "choices": choices}
        await answer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
    await answer.write(b"data: [DONE]\n\n")
    return answer


@dataclass
class Ollama(Service):
    """`ollama serve`: docs/api.md and api/types.go of its repository."""

    loaded: dict[str, int] = field(default_factory=lambda: {"qwen3:8b": 8192})
    prompt_tokens: int = 100
    too_long: bool = False

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return what answers what."""
        listed = [
            {"name": "all-minilm:22m", "model": "all-minilm:22m", "digest": "a", "size": 45, "details": {}},
            {"name": "gpt-oss:120b-cloud", "digest": "c", "size": 380, "remote_host": "https://ollama.com:443"},
            {"name": "llama3.2:1b", "digest": "l", "details": {"quantization_level": "Q8_0"}},
            {"name": "qwen3:8b", "digest": "q", "details": {"quantization_level": "Q4_K_M"}},
        ]
        running = [
            {"name": name, "model": name, "size": 6 << 30, "size_vram": 5 << 30, "context_length": context}
            for name, context in self.loaded.items()
        ]
        return {
            ("GET", "/"): document("Ollama is running"),
            ("GET", "/api/version"): document({"version": "0.12.6"}),
            ("GET", "/api/tags"): document({"models": listed}),
            ("GET", "/api/ps"): document({"models": running}),
            ("GET", "/v1/models"): document({"object": "list", "data": [{"id": "qwen3:8b", "owned_by": "library"}]}),
            ("POST", "/api/show"): self.show,
            ("POST", "/api/chat"): self.own_chat,
            ("POST", "/v1/chat/completions"): chat,
        }

    async def show(self, request: web.Request) -> web.Response:
        """Describe a model."""
        embeds = "minilm" in (await request.json())["model"]
        able, arch, context = (["embedding"], "bert", 512) if embeds else (["completion", "tools"], "qwen3", 40960)
        return web.json_response({"capabilities": able, "model_info": {f"{arch}.context_length": context}})

    async def own_chat(self, _request: web.Request) -> web.Response:
        """Count the prompt, as a chat of one token does."""
        if self.too_long:
            return web.json_response({"error": "the input length exceeds the context length"}, status=400)
        return web.json_response({"message": {"content": "H"}, "done": True, "prompt_eval_count": self.prompt_tokens})


@dataclass
class LmStudio(Service):
    """LM Studio's server, of 0.4 or, with `old`, before."""

    old: bool = False

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return what answers what."""
        openai = {("GET", "/v1/models"): document({"data": [{"id": "qwen3", "owned_by": "organization_owner"}]})}
        if self.old:
            models = [
                {"id": "nomic", "type": "embeddings", "state": "not-loaded", "max_context_length": 2048},
                {"id": "qwen3", "type": "llm", "state": "loaded", "max_context_length": 32768,
                 "loaded_context_length": 4096, "quantization": "Q4_K_M"},
            ]  # fmt: skip
            return {**openai, ("GET", "/api/v0/models"): document({"object": "list", "data": models})}
        instance = {"id": "qwen3", "config": {"context_length": 4096, "parallel": 4}}
        newer = [
            {"type": "llm", "key": "big", "loaded_instances": [], "max_context_length": 131072,
             "quantization": {"name": "Q8_0", "bits_per_weight": 8}, "size_bytes": 70},
            {"type": "llm", "key": "qwen3", "loaded_instances": [instance], "max_context_length": 32768,
             "quantization": {"name": "Q4_K_M", "bits_per_weight": 4}, "size_bytes": 50},
            {"type": "embedding", "key": "nomic", "loaded_instances": [], "max_context_length": 2048,
             "quantization": None, "size_bytes": 8},
        ]  # fmt: skip
        return {
            **openai,
            ("GET", "/api/v1/models"): document({"models": newer}),
            ("POST", "/v1/chat/completions"): chat,
        }


VLLM_METRICS = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="org/a"} {running}
vllm:num_requests_waiting{engine="0",model_name="org/a"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="org/a"} 0.25
vllm:prefix_cache_queries_total{engine="0",model_name="org/a"} 400.0
vllm:prefix_cache_hits_total{engine="0",model_name="org/a"} 100.0
"""


@dataclass
class Vllm(Service):
    """`vllm serve`. `stuck`: it lives and produces nothing."""

    stuck: bool = False
    healthy: bool = True
    running: int = 2

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return what answers what."""
        listed = [{"id": "org/a", "object": "model", "owned_by": "vllm", "root": "org/a", "max_model_len": 2048}]
        return {
            ("GET", "/health"): document("", 200 if self.healthy else 503),
            ("GET", "/version"): document({"version": "0.32.0"}),
            ("GET", "/v1/models"): document({"object": "list", "data": listed}),
            ("GET", "/metrics"): document(VLLM_METRICS.replace("{running}", str(float(self.running)))),
            ("POST", "/tokenize"): self.tokenize,
            ("POST", "/detokenize"): document({"prompt": "Hi"}),
            ("POST", "/v1/chat/completions"): self.chat,
        }

    async def tokenize(self, request: web.Request) -> web.Response:
        """Count words."""
        body = await request.json()
        text = body.get("prompt") or " ".join(message["content"] for message in body["messages"])
        tokens = list(range(len(text.split())))
        return web.json_response({"count": len(tokens), "max_model_len": 2048, "tokens": tokens})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer, or not."""
        if self.stuck:
            await asyncio.Event().wait()
        return await chat(request)


@dataclass
class OpenAi(Service):
    """A service that speaks OpenAI's API."""

    key: str = KEY
    models: tuple[str, ...] = ("gpt-small", "gpt-large")

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return what answers what."""
        listed = [{"id": name, "object": "model", "owned_by": "system", "context_length": 8192} for name in self.models]
        return {
            ("GET", "/v1/models"): document({"object": "list", "data": listed}),
            ("POST", "/v1/chat/completions"): chat,
        }


@dataclass
class Anthropic(Service):
    """A service that speaks Anthropic's API. `message` is what it answers, `events` what it streams."""

    key: str = KEY
    message: dict[str, object] = field(default_factory=dict)
    events: list[dict[str, object]] = field(default_factory=list)
    cut_after: int | None = None  # closes a stream after so many events

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Return what answers what."""
        listed = [
            {"type": "model", "id": "claude-test", "display_name": "Claude Test", "created_at": "2026-01-01T00:00:00Z",
             "max_input_tokens": 200000, "max_tokens": 64000}
        ]  # fmt: skip
        return {
            ("GET", "/v1/models"): document({"data": listed, "has_more": False}),
            ("POST", "/v1/messages"): self.messages,
            ("POST", "/v1/messages/count_tokens"): document({"input_tokens": 42}),
        }

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """Answer a message."""
        body = await request.json()
        assert request.headers["anthropic-version"]
        if not body.get("stream"):
            return web.json_response(self.message)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await answer.prepare(request)
        for number, event in enumerate(self.events):
            if number == self.cut_after:
                if request.transport:
                    request.transport.abort()
                return answer
            await answer.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        return answer


@asynccontextmanager
async def running(service: Service, port: int = 0) -> AsyncIterator[Service]:
    """Run a scripted server on loopback."""
    app = web.Application(client_max_size=32 << 20)
    app.router.add_route("*", "/{path:.*}", service.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port or service.port).start()
    service.port = runner.addresses[0][1]
    try:
        yield service
    finally:
        await runner.cleanup()
