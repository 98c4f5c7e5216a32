"""Which client speaks to which kind of model server."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Mapping
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel, ValidationError

from roost.engines.anthropic_api import AnthropicService
from roost.engines.base import Engine
from roost.engines.http_server import HttpServer, Pace
from roost.engines.llamacpp import LlamaCppPythonServer, LlamaServer
from roost.engines.lmstudio import LmStudioServer
from roost.engines.ollama import OllamaServer
from roost.engines.openai_api import OpenAiService
from roost.engines.vllm import VllmServer
from roost.engines.wire import Wire

CLIENTS: Mapping[str, type[HttpServer]] = {
    "llama.cpp": LlamaServer,
    "llama-cpp-python": LlamaCppPythonServer,
    "vllm": VllmServer,
    "ollama": OllamaServer,
    "lmstudio": LmStudioServer,
    "openai": OpenAiService,
    "anthropic": AnthropicService,
}

KNOWN_HOSTS: Mapping[str, str] = {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}
OWNERS: Mapping[str, str] = {"llamacpp": "llama.cpp", "vllm": "vllm"}
OWN_ROUTES: Mapping[str, str] = {
    "/props": "llama.cpp",
    "/api/version": "ollama",
    "/api/v1/models": "lmstudio",
    "/api/v0/models": "lmstudio",
}


def client_of(engine: str) -> type[HttpServer]:
    """Return the client for an engine's name; a name that is not known is taken for llama.cpp's own server."""
    return CLIENTS.get(engine, LlamaServer)


def connect(
    engine: str,
    base_url: str,
    session: aiohttp.ClientSession,
    key: Callable[[], str],
    pace: Pace,
    *,
    tls: ssl.SSLContext | bool = True,
    allowed: Collection[str] = (),
    keeps_slots: bool = False,
    wire: Wire | None = None,
) -> Engine:
    """Return a client of a server. `allowed` are the models that it may offer, all if empty."""
    made = client_of(engine)
    if issubclass(made, LlamaServer):
        return made(base_url, session, key, pace, tls=tls, allowed=allowed, wire=wire, keeps_slots=keeps_slots)
    return made(base_url, session, key, pace, tls=tls, allowed=allowed, wire=wire)


class UnknownServerError(Exception):
    """What kind of server it is cannot be told; the text says why."""


class _Listed(BaseModel):
    owned_by: str | None = None
    display_name: str | None = None


class _List(BaseModel):
    data: list[_Listed]


async def detect(base_url: str, session: aiohttp.ClientSession, key: str, tls: ssl.SSLContext | bool = True) -> str:
    """Return the name of the kind of server at an address, by the routes that only one kind has.

    llama.cpp's server also has some of Ollama's routes, so what a list of models says of its owner goes first.

    Raises:
        UnknownServerError: nothing that is known answers there.
    """
    if known := KNOWN_HOSTS.get(urlsplit(base_url).hostname or ""):
        return known
    asked = OpenAiService(base_url, session, lambda: key, tls=tls)
    try:
        status, body = await asked.get("/v1/models")
        listed = _List.model_validate_json(body).data if status == 200 else []
        own = next((engine for model in listed if (engine := OWNERS.get(model.owned_by or ""))), "")
        engine = own or await _by_route(asked)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise UnknownServerError(f"nothing answers there ({type(error).__name__})") from None
    except ValidationError:
        raise UnknownServerError("its list of models is none of OpenAI's shape") from None
    if not engine and status in (401, 403):
        raise UnknownServerError("it wants a key, or refuses the one that was given")
    if not engine and status != 200:
        raise UnknownServerError(f"its /v1/models answered {status}")
    anthropics = any(model.display_name and model.owned_by is None for model in listed)
    return engine or ("anthropic" if anthropics else "openai")


async def _by_route(asked: HttpServer) -> str:
    for path, engine in OWN_ROUTES.items():
        if (await asked.get(path))[0] == 200:
            return engine
    return ""
