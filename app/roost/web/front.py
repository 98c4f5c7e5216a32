"""What stands before the API for browsers: the page's files, login, and the cookie that stands for a key.

The page reaches the API as every other client does. A request with a session's cookie and no key of its own gets the
session's key here and goes on; who it is, and what it may do, the API alone decides.
"""

from __future__ import annotations

import asyncio
import hmac
import json

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roost.ops.asgi import ask
from roost.web.pages import FILES, page
from roost.web.sessions import Opened, Sessions

SESSION_PATH = "/web/session"
WHO_PATH = "/v1/key"  # of the API: describes the key that asks
COOKIE = "roost-session"
SECURE_COOKIE = "__Host-roost-session"  # browsers take this name over TLS only, and from no other host
POLICY = 1008  # RFC 6455, section 7.4.1
FORM_HEADER = "x-roost-form"
FORM_PROTOCOL = "form."
READING = frozenset({"GET", "HEAD", "OPTIONS"})
NO_ORIGIN = "The header Origin is missing: send the address of this page, such as https://roost.example:8443."
LOGIN_BYTES = 2048
LOGIN_TIMEOUT_S = 10.0


class Login(BaseModel):
    """The body of a login."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    key: str = Field(max_length=512, pattern=r"^[!-~]+$")


class Front:
    """ASGI application around the API's own."""

    def __init__(self, api: ASGIApp, sessions: Sessions) -> None:
        self._api = api
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        path = scope["path"]
        if path in FILES and scope["method"] in READING:
            await page(path, Headers(scope=scope).get("if-none-match", ""))(scope, receive, send)
        elif path == SESSION_PATH:
            await (await self._session(scope, receive))(scope, receive, send)
        elif (token := _token(scope)) and not _has_key(scope):
            await self._as_session(token, scope, receive, send)
        else:
            await self._api(scope, receive, send)

    async def _session(self, scope: Scope, receive: Receive) -> Response:
        method = scope["method"]
        if method == "GET":
            return await self._who(scope)
        if method not in {"POST", "DELETE"}:
            return _refusal(405, "Use GET, POST or DELETE.", headers={"allow": "GET, POST, DELETE"})
        if not _same_origin(scope):
            sent = Headers(scope=scope).get("origin", "")
            why = "This request comes from another site." if sent else NO_ORIGIN
            return _refusal(403, why, "cross_origin")
        return await (self._login(scope, receive) if method == "POST" else self._logout(scope))

    async def _login(self, scope: Scope, receive: Receive) -> Response:
        if Headers(scope=scope).get("content-type", "").partition(";")[0].strip() != "application/json":
            return _refusal(415, "Send JSON.")
        try:
            async with asyncio.timeout(LOGIN_TIMEOUT_S):
                secret = Login.model_validate_json(await _body(receive)).key
        except (ValidationError, TimeoutError):
            return _refusal(400, 'Send {"key": "..."} with an API key.')
        status, headers, body = await self._ask(scope, secret)
        if status != 200:  # the API's own refusal, which slows down those who guess
            return Response(body, status, _only(headers, "retry-after", "content-type"))
        return self._welcome(scope, await self._sessions.begin(secret), body)

    async def _who(self, scope: Scope) -> Response:
        """Say who is logged in; nobody is no error."""
        opened = self._sessions.find(_token(scope))
        if opened is None:
            return _document(None)
        status, headers, body = await self._ask(scope, opened.secret)
        if status == 401:
            await self._sessions.end_all_of(opened)
            return _leave(scope, _document(None))
        if status != 200:
            return Response(body, status, _only(headers, "retry-after", "content-type"))
        return self._welcome(scope, await self._sessions.renew(opened), body)

    def _welcome(self, scope: Scope, opened: Opened, key: bytes) -> Response:
        left_s = self._sessions.left_s(opened)
        answer = _document({"key": json.loads(key), "form": opened.form_token, "expires_in": left_s})
        _set_cookie(scope, answer, opened.token, left_s)
        return answer

    async def _logout(self, scope: Scope) -> Response:
        """End this session, or with `?all=1` every session of its key."""
        opened = self._sessions.find(_token(scope))
        ended = 0
        if opened:
            if not _has_form_token(scope, opened):
                return _refusal(403, "The form token is missing or wrong.", "form_token")
            if scope["query_string"] == b"all=1":
                ended = await self._sessions.end_all_of(opened)
            else:
                await self._sessions.end(opened)
                ended = 1
        return _leave(scope, JSONResponse({"session": None, "ended": ended}))

    async def _as_session(self, token: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with the session's key. If that is no longer good, all its sessions end."""
        opened = self._sessions.find(token)
        if opened is None:  # counted as any request without a key
            await self._api(scope, receive, _leaving(scope, send))
            return
        if Headers(scope=scope).get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            await _refusal(403, "This request comes from another site.", "cross_origin")(scope, receive, send)
            return
        if scope["method"] not in READING and not (_same_origin(scope) and _has_form_token(scope, opened)):
            await _refusal(403, "The form token is missing or wrong.", "form_token")(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                await self._sessions.end_all_of(opened)
                _forget(scope, MutableHeaders(scope=message))
            await send(message)

        await self._api(_with_key(scope, opened.secret), receive, watched)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a WebSocket on: from a page only if it is ours, and with the session's key only with its form token.

        Browsers let any page open one to anywhere, and send the cookie along; but they say truly where the page is
        from (RFC 6455, section 10.2). A page cannot set headers, so the form token is offered as a subprotocol.
        """
        if Headers(scope=scope).get("origin") is not None and not _same_origin(scope):
            await _refusal(403, "This request comes from another site.", "cross_origin")(scope, receive, send)
            return
        opened = None if _has_key(scope) else self._sessions.find(_token(scope))
        if opened is None:
            await self._api(scope, receive, send)
            return
        if not _same_origin(scope) or not _offers_form_token(scope, opened):
            await _refusal(403, "The form token is missing or wrong.", "form_token")(scope, receive, send)
            return
        await self._while_logged_in(opened, scope, receive, send)

    async def _while_logged_in(self, opened: Opened, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket with a session's key until the session is over: then it is closed with 1008."""
        closed = False

        async def watched(message: Message) -> None:
            nonlocal closed
            if message["type"] == "websocket.http.response.start" and message["status"] == 401:
                await self._sessions.end_all_of(opened)
                _forget(scope, MutableHeaders(scope=message))
            closed = closed or message["type"] in {"websocket.close", "websocket.http.response.start"}
            await send(message)

        serving = asyncio.ensure_future(self._api(_with_key(scope, opened.secret), receive, watched))
        over = asyncio.ensure_future(self._sessions.over(opened))
        try:
            await asyncio.wait({serving, over}, return_when=asyncio.FIRST_COMPLETED)
            if closed and not serving.done():  # it ends by itself
                await asyncio.wait({serving})
        finally:
            ended_here = not serving.done()
            for task in (serving, over):
                task.cancel()
            await asyncio.wait({serving, over})
        if not ended_here:
            serving.result()
        elif not closed:
            await send({"type": "websocket.close", "code": POLICY, "reason": "The session is over."})

    async def _ask(self, scope: Scope, secret: str) -> tuple[int, Headers, bytes]:
        """Ask the API about a key, in the name of the client's address; returns status, headers and body."""
        host = [(name, value) for name, value in scope["headers"] if name == b"host"]
        return await ask(self._api, scope, WHO_PATH, [*host, _bearer(secret)])


def _with_key(scope: Scope, secret: str) -> Scope:
    kept = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
    return {**scope, "headers": [*kept, _bearer(secret)]}


def _bearer(secret: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + secret.encode()


def _has_key(scope: Scope) -> bool:
    return any(name in {b"authorization", b"x-api-key"} for name, _ in scope["headers"])


def _scheme(scope: Scope) -> str:
    """Return the scheme of the page that a request of it has: a WebSocket has its own words for them."""
    scheme = str(scope.get("scheme", "http"))
    return {"ws": "http", "wss": "https"}.get(scheme, scheme)


def _cookie_name(scope: Scope) -> str:
    return SECURE_COOKIE if _scheme(scope) == "https" else COOKIE


def _token(scope: Scope) -> str:
    wanted = _cookie_name(scope)
    for name, line in scope["headers"]:
        if name == b"cookie":
            for part in line.decode("latin-1").split(";"):
                called, _, value = part.strip().partition("=")
                if called == wanted:
                    return str(value)
    return ""


def _set_cookie(scope: Scope, answer: Response, value: str, max_age_s: int) -> None:
    answer.set_cookie(
        _cookie_name(scope),
        value,
        max_age=max_age_s,
        path="/",
        secure=scope.get("scheme") == "https",
        httponly=True,
        samesite="strict",
    )


def _forget(scope: Scope, headers: MutableHeaders) -> None:
    gone = Response()
    _set_cookie(scope, gone, "", 0)
    headers.append("set-cookie", gone.headers["set-cookie"])


def _leave(scope: Scope, answer: Response) -> Response:
    _forget(scope, answer.headers)
    return answer


def _leaving(scope: Scope, send: Send) -> Send:
    async def leaving(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 401:
            _forget(scope, MutableHeaders(scope=message))
        await send(message)

    return leaving


def _same_origin(scope: Scope) -> bool:
    """Say whether a request comes from our own page: browsers send `Origin` with everything but reading."""
    headers = Headers(scope=scope)
    return headers.get("origin", "") == f"{_scheme(scope)}://{headers.get('host', '')}"


def _has_form_token(scope: Scope, opened: Opened) -> bool:
    return hmac.compare_digest(Headers(scope=scope).get(FORM_HEADER, "").encode(), opened.form_token.encode())


def _offers_form_token(scope: Scope, opened: Opened) -> bool:
    wanted = f"{FORM_PROTOCOL}{opened.form_token}".encode()
    return any(hmac.compare_digest(str(one).encode(), wanted) for one in scope.get("subprotocols", ()))


async def _body(receive: Receive) -> bytes:
    """Receive a small body; what is too long is no login, and cut."""
    parts = b""
    while len(parts) <= LOGIN_BYTES:
        message = await receive()
        parts += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    return parts[: LOGIN_BYTES + 1]


def _document(session: dict[str, object] | None) -> JSONResponse:
    return JSONResponse({"session": session}, headers={"cache-control": "no-store"})


def _refusal(status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> Response:
    kind = "permission_error" if status == 403 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code or None}
    return JSONResponse({"error": error}, status, headers)


def _only(headers: Headers, *names: str) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}
