"""Which client speaks to which kind of model server."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Mapping

import aiohttp

from roost.engines.anthropic_api import AnthropicService
from roost.engines.base import Engine
from roost.engines.http_server import HttpServer, Pace
from roost.engines.llamacpp import LlamaCppPythonServer, LlamaServer
from roost.engines.lmstudio import LmStudioServer
from roost.engines.ollama import OllamaServer
from roost.engines.openai_api import OpenAiService
from roost.engines.vllm import VllmServer

CLIENTS: Mapping[str, type[HttpServer]] = {
    "llama.cpp": LlamaServer,
    "llama-cpp-python": LlamaCppPythonServer,
    "vllm": VllmServer,
    "ollama": OllamaServer,
    "lmstudio": LmStudioServer,
    "openai": OpenAiService,
    "anthropic": AnthropicService,
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
) -> Engine:
    """Return a client of a server. `allowed` are the models that it may offer, all if empty."""
    made = client_of(engine)
    if issubclass(made, LlamaServer):
        return made(base_url, session, key, pace, tls=tls, allowed=allowed, keeps_slots=keeps_slots)
    return made(base_url, session, key, pace, tls=tls, allowed=allowed)
