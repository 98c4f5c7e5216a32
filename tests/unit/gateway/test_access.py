"""Who may do what: every route for every role, and that a route without a rule cannot be served."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Message

from roost.gateway.access import guard
from roost.gateway.app import OPEN_PATHS, build, client_session
from roost.gateway.auth import Keys, RequireKey
from roost.gateway.penalties import ADDRESSES, FREE, LONGEST_S, Penalties, Slowdown, network_of
from roost.ops.api_keys import ApiKey, KeyDocument, digest_of, made_key
from tests.support.fakes import fake_engine
from tests.support.gateway import API_KEY, Served, quick_settings, served

NOW = datetime.now(UTC).replace(microsecond=0)
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
# What each role gets from each route: admin, user, read-only, nobody.
ONE_PROMPT = ("completions", "responses", "responses/input_tokens", "messages")
BODY_IS_WRONG = (*ONE_PROMPT, "embeddings", "rerank", "tokenize", "detokenize")
NOT_AT_THE_SERVER = ("count", "messages/count_tokens")
EXPECTED = {
    ("GET", "/healthz"): (200, 200, 200, 200),
    ("GET", "/readyz"): (200, 200, 200, 200),
    ("GET", "/openapi.json"): (200, 200, 200, 401),
    ("GET", "/metrics"): (200, 403, 200, 401),
    ("GET", "/metrics/engines"): (200, 403, 200, 401),
    ("GET", "/metrics/agent"): (200, 403, 200, 401),
    ("GET", "/v1/models"): (200, 200, 200, 401),
    ("GET", "/v1/models/{name:path}"): (200, 200, 200, 401),
    ("GET", "/v1/key"): (200, 200, 200, 401),
    ("GET", "/v1/usage"): (200, 200, 200, 401),
    ("GET", "/v1/limits"): (200, 403, 403, 401),
    ("GET", "/roost/v1/decisions"): (200, 403, 200, 401),
    ("GET", "/roost/v1/router"): (200, 403, 200, 401),
    ("GET", "/roost/v1/replicas"): (200, 403, 200, 401),
    ("POST", "/roost/v1/replicas/exchange"): (401, 401, 401, 401),  # the gateways have a key of their own
    ("POST", "/roost/v1/explain"): (200, 200, 403, 401),
    ("GET", "/roost/v1/endpoints"): (200, 403, 403, 401),
    ("POST", "/roost/v1/endpoints"): (400, 403, 403, 401),  # a chat is no endpoint
    **{(method, "/roost/v1/endpoints/{name}"): (404, 403, 403, 401) for method in ("GET", "DELETE")},
    **{("POST", f"/roost/v1/endpoints/{{name}}/{verb}"): (404, 403, 403, 401) for verb in ("drain", "undrain", "test")},
    ("GET", "/roost/v1/load"): (200, 403, 200, 401),
    ("POST", "/v1/chat/completions"): (200, 200, 403, 401),
    # A chat is no body for these, or the scripted server does not have them: who gets that far was let in.
    **{("POST", f"/v1/{path}"): (400, 400, 403, 401) for path in BODY_IS_WRONG},
    **{("POST", f"/v1/{path}"): (501, 501, 403, 401) for path in NOT_AT_THE_SERVER},
}
WHO = ("admin", "user", "read-only", "")


def write_document(folder: Path, *keys: ApiKey) -> Path:
    """Write keys as `roost keys` does."""
    path = folder / "keys.json"
    path.write_text(KeyDocument(keys=keys).text())
    return path


def key(name: str, **more: object) -> ApiKey:
    """Return a key whose secret is its name."""
    return made_key({"name": name, "sha256": digest_of(name), **more})


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Served]:
    """Run a gateway that knows a key of each role."""
    document = write_document(
        tmp_path,
        key("user"),
        key("read-only", role="read-only"),
        key("other", models=["another-model"]),
        key("slot", models=["main"]),
        key("old", expires=NOW - timedelta(seconds=1)),
        key("gone", revoked=NOW),
    )
    async with (
        fake_engine() as engine,
        served(quick_settings(tmp_path, static_endpoints=engine.url, keys_file=document)) as running,
    ):
        await running.ready()
        yield running


async def ask(gateway: Served, who: str, method: str, path: str, **more: object) -> tuple[int, dict[str, Any]]:
    """Send one request with the key of that name; `admin` is the first key."""
    secret = API_KEY if who == "admin" else who
    headers = {"Authorization": f"Bearer {secret}" if secret else ""}
    body = {**CHAT, **more} if method == "POST" else None
    async with gateway.client.request(method, gateway.url + path, headers=headers, json=body) as answer:
        document = await answer.json() if answer.content_type == "application/json" else {}
        return answer.status, document


def routes(gateway: Served) -> list[tuple[str, str]]:
    """Return method and path of every route that the application serves."""
    found = []
    for route in gateway.gateway.routes:
        assert isinstance(route, Route)
        found += [(method, route.path) for method in sorted(route.methods or ()) if method != "HEAD"]
    return found


async def test_every_route_for_every_role(gateway: Served) -> None:
    assert sorted(routes(gateway)) == sorted(EXPECTED), "a new route needs a row here and a rule in access.py"
    for (method, path), wanted in EXPECTED.items():
        real = path.replace("{name:path}", "tiny").replace("{name}", "no-such")
        *known, stranger = [(await ask(gateway, who, method, real))[0] for who in WHO]
        if stranger == 429:  # from the 21st wrong key on
            stranger = 401
        assert (*known, stranger) == wanted, (method, path)


async def test_a_route_without_a_rule_cannot_be_served(tmp_path: Path) -> None:
    async def page(_request: Request) -> Response:
        return Response()

    async with client_session() as session:
        routes = [*build(quick_settings(tmp_path), session).routes]
    guard(routes, OPEN_PATHS)
    for route in (Route("/v1/new", page), Mount("/v1/sub", routes=[Route("/x", page)])):
        with pytest.raises(LookupError, match="no rule"):
            guard([*routes, route], OPEN_PATHS)
    with pytest.raises(LookupError, match="open in one place"):
        guard(routes, OPEN_PATHS | {"/metrics"})
    with pytest.raises(LookupError, match="open in one place"):
        guard([Route("/healthz", page)], frozenset())


async def test_a_key_that_expired_or_was_revoked_is_none(gateway: Served) -> None:
    status, document = await ask(gateway, "old", "GET", "/v1/models")
    assert (status, document["error"]["code"]) == (401, "expired_api_key")
    assert (await ask(gateway, "gone", "GET", "/v1/models"))[0] == 401


async def test_a_key_sees_and_uses_its_models_only(gateway: Served) -> None:
    for who, sees in (("user", ["tiny"]), ("other", []), ("slot", ["tiny"])):
        _, document = await ask(gateway, who, "GET", "/v1/models")
        assert [entry["id"] for entry in document["data"]] == sees
        status = 200 if sees else 404
        assert (await ask(gateway, who, "GET", "/v1/models/tiny"))[0] == status
        for name in ("tiny", "auto"):
            assert (await ask(gateway, who, "POST", "/v1/chat/completions", model=name))[0] == status


async def test_what_belongs_to_another_key_is_not_there(gateway: Served) -> None:
    for path in ("/v1/usage?key=slot", "/v1/key?name=slot", "/v1/usage?key=nobody", "/v1/key?name=nobody"):
        assert (await ask(gateway, "user", "GET", path))[0] == 404
    assert (await ask(gateway, "admin", "GET", "/v1/key?name=slot"))[1]["models"] == ["main"]
    assert (await ask(gateway, "user", "GET", "/v1/key?name=user"))[1]["name"] == "user"
    text = str(await ask(gateway, "admin", "GET", "/v1/limits"))
    assert digest_of("user") not in text


async def test_a_rotated_key_is_good_with_both_secrets_until_its_time(tmp_path: Path) -> None:
    def rotated(until: datetime) -> ApiKey:
        return key("r", previous_sha256=digest_of("before"), previous_until=until)

    keys = Keys(None, write_document(tmp_path, rotated(NOW + timedelta(hours=1))))
    assert {found.name for secret in ("r", "before") if (found := keys.find(secret))} == {"r"}
    write_document(tmp_path, rotated(NOW - timedelta(hours=1)))
    assert (keys.find("r") is not None, keys.find("before")) == (True, None)


async def test_wrong_keys_are_answered_later_and_a_right_one_always(tmp_path: Path) -> None:
    now, held, statuses, waits = 0.0, list[float](), list[int](), list[bytes]()

    async def sleep(seconds: float) -> None:
        held.append(seconds)

    async def app(_scope: object, _receive: object, _send: object) -> None:
        statuses.append(200)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            waits.extend(value for name, value in message["headers"] if name == b"retry-after")

    digests = tmp_path / "digests"
    digests.write_text(hashlib.sha256(b"right").hexdigest())
    guarding = RequireKey(app, keys=Keys(digests), is_public=lambda _path: False, slowdown=Slowdown(lambda: now, sleep))

    async def knock(secret: str, address: str) -> None:
        headers = [(b"authorization", f"Bearer {secret}".encode())]
        await guarding({"type": "http", "path": "/", "headers": headers, "client": (address, 1)}, receive, send)

    for _ in range(FREE + 9):
        await knock("wrong", "192.0.2.1")
    assert statuses == [401] * FREE + [429] * 9
    assert [int(wait) for wait in waits] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert held == [1.0] * 9
    await knock("right", "192.0.2.1")
    await knock("wrong", "192.0.2.2")
    assert statuses[-2:] == [200, 401]
    now = 301.0
    await knock("wrong", "192.0.2.1")
    assert statuses[-1] == 401


def test_the_memory_of_wrong_keys_is_bounded() -> None:
    penalties = Penalties()
    for number in range(ADDRESSES + 500):
        penalties.strike(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(penalties) == ADDRESSES
    assert max(penalties.strike("x", 0.0).retry_after_s for _ in range(2000)) == LONGEST_S
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2") != network_of("2001:db8:0:1::1")
