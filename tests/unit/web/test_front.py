"""Login on the page, in front of the real gateway: the cookie, other sites, roles, revoked keys, guesses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from roost.gateway.penalties import FREE
from roost.ops.api_keys import ApiKey, KeyDocument, digest_of, made_key
from roost.web.front import COOKIE, FORM_HEADER, SECURE_COOKIE, SESSION_PATH, Front
from roost.web.sessions import FILE, MOST_OF_A_KEY, Opened, Sessions
from tests.support.fakes import fake_engine
from tests.support.gateway import API_KEY, Served, quick_settings, served

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}


def key(name: str, **more: object) -> ApiKey:
    """Return a key whose secret is its name."""
    return made_key({"name": name, "sha256": digest_of(name), **more})


def write(folder: Path, *keys: ApiKey) -> Path:
    """Write keys as `roost keys` does."""
    path = folder / "keys.json"
    path.write_text(KeyDocument(keys=keys).text())
    return path


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Served]:
    """Run the service with a key of each role."""
    document = write(tmp_path, key("user"), key("watcher", role="read-only"))
    state = tmp_path / "state"
    state.mkdir()
    async with (
        fake_engine() as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, keys_file=document, state_dir=state)) as running,
    ):
        await running.ready()
        yield running


@dataclass
class Answer:
    """What came back."""

    status: int
    document: dict[str, object]
    cookies: list[str]
    headers: Mapping[str, str]  # names in small letters


@dataclass
class Browser:
    """Sends what the page in a browser would send; `cookie` is what it holds."""

    gateway: Served
    cookie: str = ""
    form: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send one request; a header given as "" is left out."""
        sent = {"Origin": self.gateway.url, "Sec-Fetch-Site": "same-origin", FORM_HEADER: self.form}
        if self.cookie:
            sent["Cookie"] = f"other=1; {COOKIE}={self.cookie}"
        sent |= self.extra | {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        async with self.gateway.client.request(
            method, self.gateway.url + path, json=body, headers=sent, skip_auto_headers=["Authorization"]
        ) as answer:
            document = await answer.json() if answer.content_type == "application/json" else {}
            return Answer(
                answer.status,
                document,
                answer.headers.getall("Set-Cookie", []),
                {name.lower(): value for name, value in answer.headers.items()},
            )

    async def login(self, secret: str) -> Answer:
        """Log in and keep the cookie."""
        answer = await self.ask("POST", SESSION_PATH, {"key": secret})
        if answer.status == 200:
            session = answer.document["session"]
            assert isinstance(session, dict)
            self.form = session["form"]
            self.cookie = answer.cookies[0].partition("=")[2].partition(";")[0]
        return answer


@pytest.fixture
async def browser(gateway: Served) -> Browser:
    """Return a browser that is not logged in, and whose requests carry no key."""
    gateway.client.headers.popall("Authorization")  # the tests' client has it by default
    return Browser(gateway)


async def test_a_key_becomes_a_cookie_that_scripts_cannot_read(browser: Browser) -> None:
    assert (await browser.ask("GET", SESSION_PATH)).document == {"session": None}
    assert (await browser.ask("GET", "/v1/models")).status == 401
    answer = await browser.login(f" {API_KEY}\n")
    assert answer.status == 200
    [cookie] = answer.cookies
    assert {part.strip() for part in cookie.split(";")[1:]} == {
        "HttpOnly",
        "SameSite=strict",
        "Path=/",
        "Max-Age=43200",
    }
    assert API_KEY not in str(answer.document) + cookie
    session = answer.document["session"]
    assert isinstance(session, dict)
    assert session["key"]["role"] == "admin"
    assert answer.headers["cache-control"] == "no-store"
    assert (await browser.ask("GET", "/v1/models")).status == 200
    assert (await browser.ask("POST", "/v1/chat/completions", CHAT)).status == 200
    again = (await browser.ask("GET", SESSION_PATH)).document["session"]
    assert isinstance(again, dict)
    assert again["form"] == browser.form


async def test_a_wrong_key_is_the_apis_own_refusal_and_guesses_are_slowed_down(browser: Browser) -> None:
    answer = await browser.login("wrong")
    assert (answer.status, answer.cookies) == (401, [])
    for _ in range(FREE - 1):
        await browser.login("wrong")
    slow = await browser.login("wrong")
    assert slow.status == 429
    assert int(slow.headers["retry-after"]) >= 1
    assert (await browser.login(API_KEY)).status == 200


@pytest.mark.parametrize("body", [None, {}, {"key": ""}, {"key": "a b"}, {"key": "ä"}, {"key": "x" * 5000}, {"key": 1}])
async def test_what_is_no_login_is_refused(browser: Browser, body: object) -> None:
    answer = await browser.ask("POST", SESSION_PATH, body, Content_Type="application/json")
    assert answer.status == 400
    assert (await browser.ask("PUT", SESSION_PATH, {})).status == 405
    assert (await browser.ask("POST", SESSION_PATH, {"key": API_KEY}, Content_Type="text/plain")).status == 415


async def test_a_login_by_hand_needs_the_pages_address_and_is_told_so(browser: Browser) -> None:
    bare = {"Sec_Fetch_Site": "", FORM_HEADER: ""}
    answer = await browser.ask("POST", SESSION_PATH, {"key": API_KEY}, Origin="", **bare)
    assert answer.status == 403
    assert "Origin is missing" in str(answer.document)
    assert (await browser.ask("POST", SESSION_PATH, {"key": API_KEY}, **bare)).status == 200
    docs = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    [line] = [line for line in docs.splitlines() if "curl" in line and SESSION_PATH in line]
    assert '-H "Origin: $HUB"' in line
    assert "-H 'Content-Type: application/json'" in line


async def test_another_site_can_neither_log_in_nor_use_the_cookie(browser: Browser) -> None:
    evil = {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}
    assert (await browser.ask("POST", SESSION_PATH, {"key": API_KEY}, **evil)).status == 403
    assert (await browser.ask("POST", SESSION_PATH, {"key": API_KEY}, Origin="")).status == 403
    await browser.login(API_KEY)
    for headers in (
        evil,
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": browser.gateway.url + "1"},
        {FORM_HEADER: ""},
        {FORM_HEADER: "0" * 64},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert (await browser.ask("POST", "/v1/chat/completions", CHAT, **headers)).status == 403, headers
        assert (await browser.ask("DELETE", SESSION_PATH, **headers)).status == (
            200 if headers == {"Sec_Fetch_Site": "same-site"} else 403
        ), headers
        if headers == {"Sec_Fetch_Site": "same-site"}:
            return
    pytest.fail("the last of them must be reached")


async def test_another_site_cannot_read_with_the_cookie(browser: Browser) -> None:
    await browser.login(API_KEY)
    assert (await browser.ask("GET", "/v1/models", Sec_Fetch_Site="cross-site")).status == 403
    assert (await browser.ask("GET", "/v1/models", Sec_Fetch_Site="")).status == 200  # an older browser


async def test_a_key_of_its_own_goes_before_the_cookie(browser: Browser) -> None:
    await browser.login(API_KEY)
    answer = await browser.ask("GET", "/v1/key", Authorization="Bearer watcher", Origin="https://other.example")
    assert answer.document["name"] == "watcher"
    assert (await browser.ask("GET", "/v1/key", x_api_key="wrong")).status == 401


async def test_the_api_decides_what_a_session_may(browser: Browser) -> None:
    for secret, metrics, limits, chat in (
        ("watcher", 200, 403, 403),
        ("user", 403, 403, 200),
        (API_KEY, 200, 200, 200),
    ):
        await browser.login(secret)
        assert (await browser.ask("GET", "/metrics")).status == metrics
        assert (await browser.ask("GET", "/v1/limits")).status == limits
        assert (await browser.ask("POST", "/v1/chat/completions", CHAT)).status == chat


async def test_logout_ends_the_session_here_or_everywhere(browser: Browser) -> None:
    await browser.login("user")
    other = Browser(browser.gateway)
    await other.login("user")
    answer = await browser.ask("DELETE", SESSION_PATH)
    assert (answer.status, answer.document) == (200, {"session": None, "ended": 1})
    assert f"{COOKIE}=" in answer.cookies[0]
    assert "Max-Age=0" in answer.cookies[0]
    assert (await browser.ask("GET", "/v1/models")).status == 401
    assert (await other.ask("GET", "/v1/models")).status == 200
    await browser.login("user")
    assert (await browser.ask("DELETE", SESSION_PATH + "?all=1")).document["ended"] == 2
    assert (await other.ask("GET", "/v1/models")).status == 401
    assert (await other.ask("DELETE", SESSION_PATH)).status == 200  # once more does no harm


@pytest.mark.parametrize("change", [{"revoked": datetime.now(UTC)}, {"sha256": digest_of("new")}])
async def test_a_revoked_or_replaced_key_ends_its_sessions(
    browser: Browser, tmp_path: Path, change: dict[str, object]
) -> None:
    await browser.login("user")
    other = Browser(browser.gateway)
    await other.login("user")
    write(tmp_path, key("user", **change))
    answer = await browser.ask("GET", "/v1/models")
    assert answer.status == 401
    assert "Max-Age=0" in answer.cookies[0]
    write(tmp_path, key("user"))  # good again, and its sessions are over all the same
    assert (await other.ask("GET", "/v1/models")).status == 401
    assert (await other.ask("GET", SESSION_PATH)).document == {"session": None}


async def test_a_session_whose_key_is_over_is_none(browser: Browser, tmp_path: Path) -> None:
    await browser.login("user")
    write(tmp_path)
    answer = await browser.ask("GET", SESSION_PATH)
    assert answer.document == {"session": None}
    assert "Max-Age=0" in answer.cookies[0]
    assert '"sessions":[]' in (tmp_path / "state" / FILE).read_text()


async def test_over_tls_the_cookie_is_secure_and_of_this_host() -> None:
    async def api(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"name": "x"}'})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b'{"key": "k"}', "more_body": False}

    headers = [
        (b"host", b"roost.example:8443"),
        (b"origin", b"https://roost.example:8443"),
        (b"content-type", b"application/json; charset=utf-8"),
    ]
    scope = {"type": "http", "scheme": "https", "method": "POST", "path": SESSION_PATH, "query_string": b""}
    front = Front(api, Sessions(None, 60))
    await front({**scope, "headers": headers}, receive, send)
    cookie = dict(sent[0]["headers"])[b"set-cookie"].decode()
    assert cookie.startswith(f"{SECURE_COOKIE}=")
    assert "Secure" in cookie
    assert "Domain" not in cookie
    token = cookie.partition("=")[2].partition(";")[0]
    for name, wanted in ((SECURE_COOKIE, b'"form"'), (COOKIE, b'"session":null')):
        sent.clear()
        headers[1] = (b"cookie", f"a=b; {name}={token}".encode())
        await front({**scope, "method": "GET", "headers": headers}, receive, send)
        assert wanted in sent[1]["body"], name


async def test_the_page_itself_needs_nothing(browser: Browser) -> None:
    for path in ("/", "/web/js/app.js"):
        assert (await browser.ask("GET", path)).status == 200
        assert (await browser.ask("HEAD", path)).status == 200
    assert (await browser.ask("GET", "/web/none.js")).status == 401


# --- WebSocket ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 0),
        ({"form": "wrong"}, 403),
        ({"form": ""}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),  # a cookie from something that is no browser proves nothing
        ({"cookie": ""}, 0),  # goes on without a key: the API refuses it
        ({"cookie": "", "origin": "http://evil.example"}, 403),
        ({"cookie": "", "key": "mine", "origin": "http://evil.example"}, 403),
        ({"cookie": "", "key": "mine", "origin": ""}, 0),  # a program
    ],
)
async def test_a_websocket_needs_our_own_page_and_its_form_token(headers: dict[str, str], status: int) -> None:
    reached: list[Scope] = []

    async def api(scope: Scope, _receive: Receive, _send: Send) -> None:
        reached.append(scope)

    sessions = Sessions(None, 60)
    opened = await sessions.begin("secret")
    given = {"origin": "http://hub:1", "form": opened.form_token, "cookie": opened.token, "key": "", **headers}
    sent = [(b"host", b"hub:1")]
    sent += [(b"origin", given["origin"].encode())] if given["origin"] else []
    sent += [(b"cookie", f"{COOKIE}={given['cookie']}".encode())] if given["cookie"] else []
    sent += [(b"authorization", f"Bearer {given['key']}".encode())] if given["key"] else []
    protocols = ["roost.events", *([f"form.{given['form']}"] if given["form"] else [])]
    scope: Scope = {
        "type": "websocket", "scheme": "ws", "path": "/roost/v1/sessions/x/events", "headers": sent,
        "subprotocols": protocols, "extensions": {"websocket.http.response": {}},
    }  # fmt: skip
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        messages.append(message)

    await Front(api, sessions)(scope, receive, send)
    assert [message["status"] for message in messages if "status" in message] == ([status] if status else [])
    if not status:
        keys = [value for name, value in reached[0]["headers"] if name == b"authorization"]
        wanted = [f"Bearer {given['key'] or 'secret'}".encode()] if given["key"] or given["cookie"] else []
        assert keys == wanted
    else:
        assert reached == []


@dataclass
class Socket:
    """A WebSocket of a page, before a `Front` whose API accepts it and then waits for what is said."""

    sessions: Sessions
    refuse: int = 0
    heard: list[str] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    said: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)

    async def api(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.refuse:
            await Response(b"", self.refuse)(scope, receive, send)
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            self.heard.append(message["text"])
        await send({"type": "websocket.close", "code": 1000})

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "websocket.accept":
            self.accepted.set()

    def opened(self, opened: Opened) -> asyncio.Task[None]:
        scope: Scope = {
            "type": "websocket", "scheme": "ws", "path": "/roost/v1/sessions/x/events",
            "headers": [
                (b"host", b"hub:1"), (b"origin", b"http://hub:1"), (b"cookie", f"{COOKIE}={opened.token}".encode())
            ],
            "subprotocols": [f"form.{opened.form_token}"], "extensions": {"websocket.http.response": {}},
        }  # fmt: skip
        return asyncio.ensure_future(Front(self.api, self.sessions)(scope, self.said.get, self.send))


@pytest.mark.parametrize("how", ["end", "end_all_of", "time", "room"])
async def test_a_websocket_ends_with_its_session(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    sessions = Sessions(None, 60, clock=lambda: now[0])
    opened, other = await sessions.begin("secret"), await sessions.begin("other")
    mine, others = Socket(sessions), Socket(sessions)
    tasks = [mine.opened(opened), others.opened(other)]
    await asyncio.gather(mine.accepted.wait(), others.accepted.wait())
    if how == "time":
        monkeypatch.setitem(sessions._sessions, other.session.name, other.session.model_copy(update={"expires": 9e9}))
        now[0] += 61
        await sessions.begin("whatever else ends or begins has all looked at again")
    elif how == "room":
        for _ in range(MOST_OF_A_KEY):
            await sessions.begin("secret")
    else:
        await getattr(sessions, how)(opened)
    async with asyncio.timeout(10):
        await tasks[0]
    assert mine.sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "The session is over."}
    others.said.put_nowait({"type": "websocket.receive", "text": "hi"})
    others.said.put_nowait({"type": "websocket.disconnect"})
    async with asyncio.timeout(10):
        await tasks[1]
    assert others.heard == ["hi"]
    assert others.sent[-1] == {"type": "websocket.close", "code": 1000}


async def test_a_key_that_is_no_longer_good_ends_its_sessions_at_a_websocket_too() -> None:
    sessions = Sessions(None, 60)
    opened = await sessions.begin("secret")
    socket = Socket(sessions, refuse=401)
    await socket.opened(opened)
    assert [message.get("status") for message in socket.sent] == [401, None]
    assert any(name == b"set-cookie" for name, _ in socket.sent[0]["headers"])
    assert len(sessions) == 0
