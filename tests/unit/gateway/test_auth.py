"""Keys: who gets in, and that the file may change under way."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from roost.gateway.auth import Keys, RequireKey, bearer, parse_digests
from tests.support.gateway import quick_settings, served, write_keys


def test_a_key_counts_as_soon_as_the_file_holds_it(tmp_path: Path) -> None:
    keys = Keys(write_keys(tmp_path, "one"))
    assert keys.find("one")
    assert not keys.find("two")
    other = write_keys(tmp_path, "two", "three")
    os.utime(other, ns=(1, 1))  # the same length and an older time are a change too
    assert keys.find("two")
    assert keys.find("three")
    assert not keys.find("one")


def test_a_broken_file_leaves_the_last_good_keys(tmp_path: Path) -> None:
    path = write_keys(tmp_path, "one")
    keys = Keys(path)
    assert keys.find("one")
    path.write_text("not a digest\n")
    assert keys.find("one")
    path.unlink()
    assert keys.find("one")


def test_without_a_file_nobody_gets_in(tmp_path: Path) -> None:
    assert not Keys(None).find("")
    assert not Keys(tmp_path / "missing").find("x")


def test_comments_and_empty_lines_are_no_keys() -> None:
    digest = hashlib.sha256(b"k").hexdigest()
    assert parse_digests(f"# who\n\n{digest.upper()}\n") == (digest,)
    with pytest.raises(ValueError, match="SHA-256"):
        parse_digests("roost-plain-key")


@pytest.mark.parametrize(
    ("header", "key"), [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("", ""), ("Bearer", "")]
)
def test_the_key_is_read_from_the_header(header: str, key: str) -> None:
    assert bearer(header) == key


async def test_everything_needs_a_key_but_what_is_open(tmp_path: Path) -> None:
    async with served(quick_settings(tmp_path)) as gateway:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nope", "/v1/chat/completions", "//healthz"):
            for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}):
                async with gateway.client.get(gateway.url + path, headers=headers) as answer:
                    assert answer.status == 401, path
                    assert (await answer.json())["error"]["code"] == "invalid_api_key"
                    assert answer.headers["x-request-id"]
        for path in ("/", "/web/js/app.js", "/web/base.css", "/web/icon.svg", "/healthz"):
            async with gateway.client.get(gateway.url + path, headers={"Authorization": ""}) as answer:
                assert answer.status == 200, path
        async with gateway.client.get(gateway.url + "/readyz", headers={"Authorization": ""}) as answer:
            assert answer.status == 503
            assert (await answer.json())["reasons"] == ["no model server is registered"]


async def test_only_http_with_a_key_and_the_servers_own_start_pass() -> None:
    passed: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        passed.append(scope["type"])

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    guard = RequireKey(app, keys=Keys(None), is_public=lambda _path: False)
    for kind in ("lifespan", "websocket", "http"):
        await guard({"type": kind, "path": "/v1/models", "headers": []}, receive, send)
    assert passed == ["lifespan"]
    assert sent == ["http.response.start", "http.response.body"]
