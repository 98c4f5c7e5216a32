"""A real model server and the real service in front of it, once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.support.engine import EngineProcess, llama_server
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import wait_until


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """A model server with the smallest model."""
    with llama_server(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture(scope="session")
def roost(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service as users run it, ready."""
    folder = tmp_path_factory.mktemp("service")
    environment = {
        "ROOST_API_KEYS_FILE": str(write_keys(folder)),
        "ROOST_ENGINE_KEY_FILE": str(engine.key_file),
        "ROOST_STATIC_ENDPOINTS": engine.base_url,
    }
    with service(folder, environment) as running:
        wait_until(lambda: '"state": "ready"' in running.log.read_text(), 60, "the model to be routable")
        yield running


@pytest.fixture(scope="module")
def hub(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Gateway and hub in one process, with a folder for sessions."""
    folder = tmp_path_factory.mktemp("hub")
    environment = {
        "ROOST_API_KEYS_FILE": str(write_keys(folder)),
        "ROOST_ENGINE_KEY_FILE": str(engine.key_file),
        "ROOST_STATIC_ENDPOINTS": engine.base_url,
        "ROOST_STATE_DIR": str(folder / "state"),
    }
    (folder / "state").mkdir()
    with service(folder, environment) as running:
        wait_until(lambda: '"state": "ready"' in running.log.read_text(), 60, "the model to be routable")
        yield running


@pytest.fixture
def client(roost: Service) -> Iterator[OpenAI]:
    """The official client with the right key; it does not try again by itself."""
    with OpenAI(base_url=f"{roost.url}/v1", api_key=API_KEY, max_retries=0, timeout=120) as made:
        yield made
