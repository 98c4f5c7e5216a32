"""`roost keys`, `limits` and `usage` as a user types them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from roost.cli.usage import day_of
from roost.cli.verbs import run_command_line
from roost.fleet.key_store import FileKeyStore
from roost.ops.api_keys import KeyDocument, Tier, digest_of
from roost.ops.errors import NOT_FOUND, USAGE, RoostError
from tests.unit.cli.fakes import KEY, Handler, running


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """Return where the keys are."""
    return tmp_path / "keys.json"


class Shell:
    """Types commands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self._file = file

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run `roost WORDS`; return exit code, what was printed and what was complained."""
        self._monkeypatch.setattr("sys.argv", ["roost", *words])
        try:
            code = run_command_line()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def keys(self, *words: str) -> tuple[int, str, str]:
        """Run `roost keys WORDS` with the file."""
        return self.run("keys", *words, "--file", str(self._file))

    def document(self) -> KeyDocument:
        """Return what the file holds."""
        return FileKeyStore(self._file).load()[0]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], keys_file: Path) -> Shell:
    """Return something to type commands into."""
    return Shell(monkeypatch, capsys, keys_file)


def test_a_key_is_shown_once_and_kept_as_its_hash(shell: Shell, keys_file: Path) -> None:
    code, out, err = shell.keys("add", "alice", "--models", "main, tiny", "--expires", "30d", "--tier", "bulk")
    secret = out.strip()
    assert (code, secret.startswith("roost-")) == (0, True)
    assert "shown only now" in err
    assert secret not in keys_file.read_text()
    key = shell.document().find("alice")
    assert key
    assert (key.sha256, key.models, key.tier) == (digest_of(secret), ("main", "tiny"), Tier.BULK)
    for words in (("list",), ("list", "--json"), ("show", "alice"), ("show", "alice", "--json")):
        code, out, _ = shell.keys(*words)
        assert (code, "alice" in out) == (0, True)
        assert key.sha256 not in out


def test_a_dry_run_changes_nothing_and_finds_what_would_fail(shell: Shell, keys_file: Path) -> None:
    code, out, _ = shell.keys("add", "alice", "--dry-run", "--json")
    assert (code, json.loads(out)) == (0, {"name": "alice", "key": None, "applied": False})
    assert not keys_file.exists()
    shell.keys("add", "alice")
    before = keys_file.read_text()
    for words in (("set", "alice", "--tier", "bulk"), ("rotate", "alice"), ("revoke", "alice")):
        assert shell.keys(*words, "--dry-run")[0] == 0
        assert keys_file.read_text() == before
    code, _, err = shell.keys("add", "alice", "--dry-run")
    assert (code, "is taken" in err, "fix: " in err) == (USAGE, True, True)


def test_a_key_is_changed_rotated_and_revoked(shell: Shell) -> None:
    _, first, _ = shell.keys("add", "alice")
    assert shell.keys("set", "alice", "--role", "read-only", "--tokens-per-day", "500", "--owner", "Al")[0] == 0
    key = shell.document().find("alice")
    assert key
    assert (key.role.value, key.budget.tokens_per_day, key.owner) == ("read-only", 500, "Al")
    assert shell.keys("set", "alice", "--tokens-per-day", "0", "--models", "")[0] == 0
    _, out, _ = shell.keys("rotate", "alice", "--grace", "24", "--json")
    key = shell.document().find("alice")
    assert key
    assert (key.sha256, key.previous_sha256) == (digest_of(json.loads(out)["key"]), digest_of(first.strip()))
    assert key.budget.tokens_per_day == 0
    assert shell.keys("revoke", "alice")[0] == 0
    assert json.loads(shell.keys("list", "--json")[1])[0]["state"] == "revoked"
    assert shell.keys("revoke", "alice", "--purge")[0] == 0
    assert shell.document() == KeyDocument()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "Not A Name"), "not valid: name: should be made of"),
        (("add", "admin"), "first key"),
        (("add", "a", "--expires", "soon"), "no time"),
        (("set", "nobody", "--tier", "bulk"), "no key named"),
        (("set", "nobody"), "Nothing to change"),
        (("show", "nobody"), "no key named"),
        (("revoke", "admin"), "secrets/api-key"),
    ],
)
def test_what_is_wrong_is_said_with_a_fix(shell: Shell, words: tuple[str, ...], said: str) -> None:
    code, out, err = shell.keys(*words)
    codes = {"no key named": NOT_FOUND, "secrets/api-key": 1}
    assert (code, out) == (codes.get(said, USAGE), "")
    assert said in err
    assert "fix: " in err


def test_a_tier_is_overridden_and_reset(shell: Shell, keys_file: Path) -> None:
    file = ("--file", str(keys_file))
    assert shell.run("limits", "set", "bulk", "--requests", "5", *file)[0] == 0
    _, out, _ = shell.run("limits", "set", "bulk", "--concurrent", "1", "--json", *file)
    assert json.loads(out)["overridden"] == {"requests": 5, "concurrent": 1}
    assert "No number" in shell.run("limits", "set", "bulk", *file)[2]
    assert shell.run("limits", "reset", "bulk", *file)[0] == 0
    assert shell.document() == KeyDocument()


def test_limits_and_usage_are_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    limits: dict[str, Any] = {
        "tiers": [
            {"tier": "bulk", "requests": 60, "tokens": 0, "concurrent": 2, "waiting": 9, "overridden": True},
        ],
        "keys": [
            {
                "name": "alice", "tier": "bulk", "state": "active", "remaining": {"requests": 7}, "running": 1,
                "waiting": 0, "budget": {"tokens_per_day": 500}, "used": {"tokens_per_day": 20},
            }
        ],
    }  # fmt: skip
    row = {
        "key": "alice", "day": "2030-01-01", "requests": 3, "failed": 1, "estimated": 0, "prompt_tokens": 20,
        "cached_tokens": 5, "completion_tokens": 7, "engine_seconds": 1.5, "energy_wh": 0.2, "cost": 0.01,
    }  # fmt: skip
    usage = {"object": "list", "data": [row], "currency": "EUR"}

    def answer(request: Handler) -> None:
        asked.append(request.path)
        request.answer_json(200, limits if request.path.startswith("/v1/limits") else usage)

    with running(answer) as port:
        monkeypatch.setenv("ROOST_API", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("ROOST_API_KEY", KEY)
        code, out, _ = shell.run("limits")
        assert (code, "20 of 500 tokens per day" in out, "unbounded" in out) == (0, True, True)
        assert json.loads(shell.run("limits", "--json")[1]) == limits
        code, out, _ = shell.run("usage", "--by", "day,key", "--since", "2030-01-01")
        assert (code, "cost EUR" in out, "2030-01-01  alice" in out) == (0, True, True)
        assert json.loads(shell.run("usage", "--json")[1]) == usage
    assert "/v1/usage?by=day%2Ckey&since=2030-01-01" in asked


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("7d", "2030-01-03"), ("24h", "2030-01-09"), ("2H", "2030-01-09"), ("1w", "2030-01-03"),
        ("today", "2030-01-10"),
        ("Yesterday", "2030-01-09"), ("2029-12-31", "2029-12-31"), ("2030-01-01T00:30:00+02:00", "2029-12-31"),
        ("", ""),
    ],
)  # fmt: skip
def test_since_is_a_day_a_word_or_so_long_back(text: str, day: str) -> None:
    assert day_of("--since", text, datetime(2030, 1, 10, 1, tzinfo=UTC)) == day


@pytest.mark.parametrize(("text", "said"), [("99999999d", "too long ago"), ("last week", "'last week'"), ("7", "'7'")])
def test_another_since_is_refused_with_what_may_be_written(text: str, said: str) -> None:
    with pytest.raises(RoostError, match=said) as caught:
        day_of("--since", text)
    assert caught.value.exit_code == 2
    assert "d" in caught.value.fix


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ROOST_API", "http://[::1", "no address of an API"),
        ("ROOST_API", "127.0.0.1:8360", "no address of an API"),
        ("ROOST_API", "ftp://host", "no address of an API"),
        ("ROOST_API_KEY", "kä", "characters that no key has"),
        ("ROOST_API_KEY", "k\ny", "characters that no key has"),
    ],
)
def test_an_access_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, shell: Shell, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv("ROOST_API", "http://127.0.0.1:9")
    monkeypatch.setenv("ROOST_API_KEY", KEY)
    monkeypatch.setenv(variable, value)
    for command in ("usage", "limits"):
        code, _, err = shell.run(command)
        assert (code, said in err) == (USAGE, True), err


@pytest.mark.parametrize("body", [b"<html>hi", b"[1]", b""])
def test_something_else_at_the_address_is_named(monkeypatch: pytest.MonkeyPatch, shell: Shell, body: bytes) -> None:
    with running(lambda handler: handler.answer(200, body)) as port:
        monkeypatch.setenv("ROOST_API", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("ROOST_API_KEY", KEY)
        for command in ("usage", "limits"):
            code, _, err = shell.run(command)
            assert (code, "is not Roost" in err) == (1, True), err
