"""What browser tests are made of: a site with keys, scripted model servers, and pages that are watched."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from roost.ops.api_keys import ApiKey, KeyDocument, digest_of, made_key
from tests.support.fakes import FakeEngine
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import free_port, wait_until

# Pages ask every few seconds, on a machine that may be busy; Playwright's own 5 s are too few for that.
expect.set_options(timeout=30_000)

T = TypeVar("T")
KEYS = {"admin": API_KEY, "user": "roost-key-of-a-user", "watcher": "roost-key-of-a-watcher"}
PHONE = (360, 740)
DESKTOP = (1280, 860)
POLICY_WATCH = """
    window.roostViolations = [];
    document.addEventListener("securitypolicyviolation",
        (event) => window.roostViolations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


@dataclass
class ScriptedEngine(FakeEngine):
    """A model server that streams `pieces`, and before the piece number `hold` waits for `go`.

    `says` gives other pieces for some requests, or None.
    """

    pieces: tuple[str, ...] = ("Paris", ".")
    says: Callable[[dict[str, Any]], tuple[str, ...] | None] = lambda _chat: None
    thinking: tuple[str, ...] = ()
    hold: int = -1

    async def _stream(self, request: web.Request, said: int, *, include_usage: bool) -> web.StreamResponse:
        if self.mode != "ready":
            return await super()._stream(request, said, include_usage=include_usage)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        deltas = [{"reasoning_content": text} for text in self.thinking]
        other = self.says(json.loads(await request.read()))
        deltas += [{"content": text} for text in (self.pieces if other is None else other)]
        try:
            for number, delta in enumerate(deltas):
                if number == self.hold and other is None:
                    await self.go.wait()
                choice = {"index": 0, "finish_reason": None, "delta": delta}
                event = json.dumps({**self._head("chat.completion.chunk"), "choices": [choice]})
                await answer.write(f"data: {event}\n\n".encode())
            await answer.write(b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        return answer


class Stage(AbstractContextManager["Stage"]):
    """An event loop in a thread of its own, for scripted model servers beside a test that is not asynchronous."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._engines: list[ScriptedEngine] = []

    def __enter__(self) -> Stage:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every server, then the loop."""
        for engine in self._engines:
            self.run(engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def run(self, work: Coroutine[None, None, T]) -> T:
        """Run something on the loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def call(self, work: Callable[[], object]) -> None:
        """Call something on the loop."""

        async def called() -> None:
            work()

        self.run(called())

    def engine(self, **script: object) -> ScriptedEngine:
        """Start a scripted model server; `script` sets its fields."""

        async def start() -> ScriptedEngine:
            engine = ScriptedEngine()
            for name, value in script.items():
                setattr(engine, name, value)
            await engine.start()
            return engine

        engine = self.run(start())
        self._engines.append(engine)
        return engine


@dataclass
class Site:
    """A service with a key of each role."""

    folder: Path
    environment: Mapping[str, str]
    port: int
    engines: Mapping[str, ScriptedEngine] = field(default_factory=dict)
    service: Service | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def up(self) -> Iterator[Service]:
        """Run the service until the context ends."""
        with service(self.folder, self.environment, port=self.port) as running:
            yield running

    def write_keys(self, **changes: Mapping[str, object]) -> None:
        """Write the keys as `roost keys` does; `changes` are fields by the key's name."""
        about: dict[str, dict[str, object]] = {"user": {"owner": "Ursula, research"}, "watcher": {"role": "read-only"}}
        keys = [_key(name, {**more, **changes.get(name, {})}) for name, more in about.items()]
        (self.folder / "keys.json").write_text(KeyDocument(keys=tuple(keys)).text())

    def revoke(self, name: str) -> None:
        """Revoke a key."""
        self.write_keys(**{name: {"revoked": datetime.now(UTC)}})


def _key(name: str, more: Mapping[str, object]) -> ApiKey:
    return made_key({"name": name, "sha256": digest_of(KEYS[name]), **more})


@contextmanager
def running_site(
    folder: Path, endpoints: str, engine_key_file: Path, engines: Mapping[str, ScriptedEngine] | None = None
) -> Iterator[Site]:
    """Run the service until the context ends, ready if it can be."""
    state = folder / "state"
    state.mkdir()
    environment = {
        "ROOST_API_KEYS_FILE": str(write_keys(folder)),
        "ROOST_KEYS_FILE": str(folder / "keys.json"),
        "ROOST_ENGINE_KEY_FILE": str(engine_key_file),
        "ROOST_STATIC_ENDPOINTS": endpoints,
        "ROOST_STATE_DIR": str(state),
        "ROOST_DRAIN_S": "1",
    }
    site = Site(folder, environment, free_port(), engines or {})
    site.write_keys()
    with site.up() as running:
        site.service = running
        wait_until(lambda: '"state": "ready"' in running.log.read_text(), 60, "a model to be routable")
        yield site


class Desk:
    """Opens pages and watches them: no error in the console, nothing that breaks the page's own policy."""

    def __init__(self, browser: Browser, pictures: Path, stack: ExitStack) -> None:
        self._browser = browser
        self._pictures = pictures
        self._stack = stack
        self._pages: list[Page] = []
        self.errors: list[str] = []
        self.expected: tuple[str, ...] = ()  # parts of errors that a test provokes

    def context(self, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> BrowserContext:
        """Return a browser profile of its own."""
        context = self._browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
            locale="en-GB",
        )
        context.set_default_timeout(60_000)
        context.add_init_script(POLICY_WATCH)
        self._stack.callback(context.close)
        return context

    def open(
        self, site: Site, who: str = "", *, at: str = "", context: BrowserContext | None = None,
        size: tuple[int, int] = DESKTOP, scheme: str = "light",
    ) -> Page:  # fmt: skip
        """Open the page, logged in as `who` if that is given."""
        page = (context or self.context(size, scheme)).new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._asked(site, request.url))
        self._pages.append(page)
        page.goto(f"{site.url}/{at}")
        if who:
            login(page, who)
        return page

    def picture(self, page: Page, name: str) -> None:
        """Keep a picture for people to look at."""
        page.screenshot(path=self._pictures / f"{name}.png")

    def check(self) -> None:
        """Fail if a page had an error, or asked for what its policy forbids."""
        for page in self._pages:
            if not page.is_closed():
                self.errors += [f"policy: {text}" for text in page.evaluate("window.roostViolations")]
        left = [text for text in self.errors if not any(part in text for part in self.expected)]
        assert not left, "\n".join(left)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def _asked(self, site: Site, url: str) -> None:
        if not url.startswith(site.url):
            self.errors.append(f"asked elsewhere: {url}")


def login(page: Page, who: str) -> None:
    """Log in with the key of that name."""
    page.get_by_label("API key").fill(KEYS[who])
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#who")).to_have_text(who)


def ask(page: Page, text: str) -> None:
    """Send a message in the chat."""
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def deterministic(page: Page) -> None:
    """Have the model give its likeliest answer."""
    settings = page.get_by_label("Settings of this conversation")
    settings.click()
    page.get_by_label("Temperature").fill("0")
    settings.click()
