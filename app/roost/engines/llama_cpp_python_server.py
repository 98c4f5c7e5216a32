"""The model server of the engine `llama-cpp-python`: its own HTTP application behind a door of ours.

`python -m roost.engines.llama_cpp_python_server`, set by environment variables `ROOST_ENGINE_<NAME>`. The door
answers `/health` to everybody, everything else only with the key, and speaks before the model is loaded. It lists the
model itself, because the application's own list waits for the request that is being worked on.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "ROOST_ENGINE_"
CHAT_PATH = "/v1/chat/completions"
MOST_BODY_BYTES = 32 << 20
SHUTDOWN_S = 5
SIBLINGS = "cpu[0-9]*/topology/thread_siblings_list"


class Settings(BaseModel):
    """What the job says; `context` in tokens for one request, `temperature` for requests that name none."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: Path
    alias: str = Field(min_length=1)
    host: str = Field(min_length=1)
    port: int = Field(ge=0, le=65535)
    context: int = Field(ge=1)
    key_file: Path
    temperature: float | None = Field(default=None, ge=0, le=2)

    def key(self) -> str:
        """Return the key; OSError if it cannot be read, ValueError if there is none: this server is never open."""
        key = self.key_file.read_text().strip()
        if not key:
            raise ValueError(f"{self.key_file} is empty")
        return key


def settings_of(environment: Mapping[str, str]) -> Settings:
    """Read the settings from environment variables; pydantic's ValidationError says what is wrong with them."""
    named = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if name.startswith(PREFIX)}
    return Settings.model_validate({name: value for name, value in named.items() if value})


def cores(folder: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return the number of physical cores; their second threads only get in the way of the arithmetic."""
    groups = {path.read_text().strip() for path in folder.glob(SIBLINGS)}
    usable = len(os.sched_getaffinity(0))
    return min(len(groups), usable) if groups else usable


def adapted(body: bytes, temperature: float | None) -> bytes:
    """Return a chat request as the application understands it; what is no JSON object stays for it to refuse.

    It takes no null for a default, does not know `max_completion_tokens`, has no default temperature to set, and
    punishes repetition unless told otherwise, which llama-server does not.
    """
    try:
        request = json.loads(body)
    except ValueError:
        return body
    if not isinstance(request, dict):
        return body
    request = {name: value for name, value in request.items() if value is not None}
    most = request.pop("max_completion_tokens", None)
    if most is not None:
        request["max_tokens"] = most
    request.setdefault("repeat_penalty", 1.0)
    if temperature is not None:
        request.setdefault("temperature", temperature)
    return json.dumps(request).encode()


class Door:
    """ASGI application in front of the engine's; `inner` is None while the model is loading."""

    def __init__(self, settings: Settings, key: str) -> None:
        self._settings = settings
        self._expected = f"Bearer {key}".encode()
        self.inner: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == "/health":
            ready = self.inner is not None
            await _answer(send, 200 if ready else 503, {"status": "ok" if ready else "loading model"})
        elif not hmac.compare_digest(dict(scope["headers"]).get(b"authorization", b""), self._expected):
            await _answer(send, 401, _error(401, "Invalid API key"))
        elif self.inner is None:
            await _answer(send, 503, _error(503, "Loading model"))
        elif scope["method"] == "GET" and path in ("/v1/models", "/props"):
            await _answer(send, 200, self._models() if path == "/v1/models" else self._props())
        elif scope["method"] == "POST" and path == CHAT_PATH:
            await self._chat(self.inner, scope, receive, send)
        else:
            await self.inner(scope, receive, send)

    def _models(self) -> object:
        model = {"id": self._settings.alias, "object": "model", "owned_by": "roost"}
        return {"object": "list", "data": [{**model, "meta": {"n_ctx": self._settings.context}}]}

    def _props(self) -> object:
        return {"total_slots": 1, "default_generation_settings": {"n_ctx": self._settings.context}}

    async def _chat(self, inner: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_BODY_BYTES:
                await _answer(send, 413, _error(413, "The request is too large"))
                return
        body = adapted(body, self._settings.temperature)
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return first.pop() if first else await receive()

        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        await inner({**scope, "headers": [*headers, (b"content-length", b"%d" % len(body))]}, replay, send)


def _error(status: int, message: str) -> object:
    return {"error": {"message": message, "type": "server_error", "code": status}}


async def _answer(send: Send, status: int, document: object) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def load(settings: Settings, key: str) -> ASGIApp:
    """Load the model and return the engine's application; takes seconds.

    Raises:
        Exception: whatever the engine raises when it cannot.
    """
    from llama_cpp.server.app import create_app
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    os.environ.pop("CONFIG_FILE", None)  # with it the application would take its settings from there
    threads = cores()
    return create_app(
        # One model works on one request; a second one waits for its turn instead of ending the first.
        server_settings=ServerSettings(
            host=settings.host,
            port=settings.port,
            api_key=key,
            interrupt_requests=False,
            disable_ping_events=True,
        ),
        model_settings=[
            ModelSettings(
                model=str(settings.model),
                model_alias=settings.alias,
                n_ctx=settings.context,
                n_threads=threads,
                n_threads_batch=threads,
                flash_attn=True,  # as llama-server does: less memory, and nearer to exact arithmetic (measured)
                verbose=False,
            )
        ],
    )


async def serve(settings: Settings, key: str, loader: Callable[[Settings, str], ASGIApp] = load) -> int:
    """Serve until told to stop; return the exit status, 1 when the model could not be loaded."""
    door = Door(settings, key)
    config = uvicorn.Config(
        door,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = uvicorn.Server(config)

    def opened(task: asyncio.Task[ASGIApp]) -> None:
        if task.cancelled() or task.exception() is not None:
            server.should_exit = True
        else:
            door.inner = task.result()

    loading = asyncio.create_task(asyncio.to_thread(loader, settings, key))
    loading.add_done_callback(opened)
    await server.serve()
    problem = loading.exception() if loading.done() and not loading.cancelled() else None
    if problem is not None:
        print(f"{settings.model} could not be loaded: {problem}", file=sys.stderr)
    return 0 if problem is None else 1


def main() -> None:
    """Run the server from the environment."""
    try:
        settings = settings_of(os.environ)
        key = settings.key()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise SystemExit(f"The environment variable {name} is not valid: {first['msg']}.") from None
    except (OSError, ValueError) as error:
        raise SystemExit(f"The model server's key cannot be read: {error}.") from None
    sys.exit(asyncio.run(serve(settings, key)))


if __name__ == "__main__":
    main()
