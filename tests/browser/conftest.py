"""A real Chromium, the real service, a real model server; and scripted ones for what those cannot be made to show.

Chromium is Debian's; Playwright only drives it. Pictures of every page go to `$ROOST_TEST_LOGS/browser`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.support import Desk, Site, Stage, running_site
from tests.support.engine import EngineProcess, llama_server

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; each has profiles of its own."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    assert program, "install the package chromium; tests/run browser does"
    # Its sandbox needs user namespaces, which root in a container has not; it meets no page but ours.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for pictures."""
    logs = os.environ.get("ROOST_TEST_LOGS")
    folder = Path(logs) / "browser" if logs else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """A model server with the smallest model."""
    with llama_server(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture(scope="module")
def real(engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The service before the real model server."""
    folder = tmp_path_factory.mktemp("real")
    with running_site(folder, engine.base_url, engine.key_file) as site:
        yield site


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Scripted model servers."""
    with Stage() as stage:
        yield stage


@pytest.fixture
def scripted(stage: Stage, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Make a service before scripted model servers, named by slot."""
    with ExitStack() as stack:

        def make(**slots: dict[str, object]) -> Site:
            engines = {slot: stage.engine(**script) for slot, script in slots.items()}
            key_file = tmp_path / "engine-key"
            key_file.write_text("engine-key")
            urls = ",".join(f"{slot}={engine.url}" for slot, engine in engines.items())
            return stack.enter_context(running_site(tmp_path, urls, key_file, engines))

        yield make


@pytest.fixture
def desk(chromium: Browser, pictures: Path, scripted: Callable[..., Site]) -> Iterator[Desk]:
    """Open pages; at the end each must have had no error and broken no policy.

    Asks for `scripted` so that its services are still there when the pages are closed.
    """
    del scripted
    with ExitStack() as stack:
        desk = Desk(chromium, pictures, stack)
        yield desk
        desk.check()
