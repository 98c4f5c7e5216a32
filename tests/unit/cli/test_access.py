"""Which API is asked with which key, and what is said where it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from roost.cli import access
from roost.cli.access import Access, find_access
from roost.cli.api import Api, patience
from roost.ops.errors import RoostError
from tests.unit.ops.test_outcome import SITE


def test_an_address_without_a_key_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_API", "http://192.0.2.1:8360")
    monkeypatch.delenv("ROOST_API_KEY", raising=False)

    def nothing_here() -> None:
        raise RoostError("Roost is not installed on this machine.", exit_code=3)

    monkeypatch.setattr(access, "load_site", nothing_here)
    with pytest.raises(RoostError, match="ROOST_API is set, ROOST_API_KEY is not") as told:
        find_access()
    assert "keys add" in told.value.fix


@pytest.mark.parametrize(
    ("has", "trusts"),
    [({}, None), ({"api_listen": "https://192.0.2.1:8443"}, "/t/ca.pem"), ({"api_ca": "/t/other.pem"}, "/t/other.pem")],
    ids=["on loopback", "on the LAN too", "on another machine"],
)
def test_the_fleets_authority_is_trusted_where_its_certificate_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: dict[str, str], trusts: str | None
) -> None:
    key = tmp_path / "api-key"
    key.write_text("key")
    (tmp_path / "site.json").write_text(json.dumps({**SITE, "api_key_file": str(key), **has}))
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "site.json"))
    monkeypatch.setenv("ROOST_API", "https://192.0.2.1:8443")
    monkeypatch.delenv("ROOST_API_KEY", raising=False)
    assert find_access() == Access("https://192.0.2.1:8443", "key", Path(trusts) if trusts else None)


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/roost/v1/sessions/nope", "roost sessions list"),
        ("/roost/v1/memory/99", "roost memory list"),
        ("/roost/v1/skills/nope", "roost skills list"),
        ("/v1/models/nope", "roost models"),
    ],
)
def test_what_is_not_there_is_told_with_where_to_look(monkeypatch: pytest.MonkeyPatch, path: str, command: str) -> None:
    def missing(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json={"error": {"message": "There is none."}})

    access = Access("http://127.0.0.1:1", "key")
    client = httpx.Client(base_url=access.base_url, transport=httpx.MockTransport(missing))
    monkeypatch.setattr(Api, "_new_client", lambda _self: client)
    with Api(access) as asked, pytest.raises(RoostError, match="There is none") as told:
        asked.get(path)
    assert told.value.fix == f"See `{command}` for what there is."


def test_the_agents_first_answer_may_take_longer_than_others() -> None:
    assert patience("/roost/v1/sessions") > patience("/v1/models") == patience("/readyz")
