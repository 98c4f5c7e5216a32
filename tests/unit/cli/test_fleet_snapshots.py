"""With which token `roost fleet snapshot save` asks: sealed secrets must not keep a server from saving by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from roost.fleet import own_token, snapshots
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.ops.errors import RoostError
from roost.ops.site import load_site
from tests.unit.cli.conftest import Run

KNOWN = "the snapshot token"
SEALED = "$ANSIBLE_VAULT;1.1;AES256\n00"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that a snapshot was asked for with; Nomad knows one, and whatever is no snapshot token."""
    tokens: list[str] = []

    def save(nomad: NomadClient, folder: Path, *, keep: int, now: datetime, out: Path | None) -> snapshots.Snapshot:
        assert (keep, out) == (3, None)
        tokens.append(nomad._access.token)
        if tokens[-1] == "forgotten":
            raise NomadRefusedError(403, "ACL token not found", "GET operator/snapshot")
        return snapshots.Snapshot(folder / "x.snap", now.astimezone(UTC), 1, 7, 1)

    monkeypatch.setattr(snapshots, "save", save)
    monkeypatch.delenv("ROOST_VAULT_PASSPHRASE_FILE", raising=False)
    monkeypatch.delenv("ROOST_VAULT_PASSPHRASE", raising=False)
    return tokens


def own() -> Path:
    return load_site().nomad_token_file.with_name(own_token.FILE)


@pytest.mark.usefixtures("site")
def test_the_own_token_is_enough_while_the_operators_is_sealed(roost: Run, asked: list[str]) -> None:
    load_site().nomad_token_file.write_text(SEALED)
    own().write_text(f"{KNOWN}\n")
    assert roost("fleet", "snapshot", "save").exit_code == 0
    assert asked == [KNOWN]
    own().unlink()
    assert "sealed" in str(roost("fleet", "snapshot", "save").exception)


@pytest.mark.usefixtures("site")
def test_one_that_nomad_forgot_is_passed_over(roost: Run, asked: list[str]) -> None:
    operators = load_site().nomad_token_file.read_text().strip()
    own().write_text("forgotten\n")
    assert roost("fleet", "snapshot", "save").exit_code == 0
    assert asked == ["forgotten", operators]


@pytest.mark.usefixtures("site")
def test_nobody_is_given_a_token_by_a_name_that_ends_with_a_server(roost: Run) -> None:
    result = roost("fleet", "access", "add", "snapshots-nas", "--role", "snapshots")
    assert isinstance(result.exception, RoostError)
    assert result.exception.exit_code == 2
