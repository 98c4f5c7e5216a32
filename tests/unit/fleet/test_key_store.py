"""Where keys are kept: check-and-set in Nomad and in a file, so that of two changes at once none is lost."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from roost.fleet import key_store
from roost.fleet.key_store import ABSENT, ConflictError, FileKeyStore, KeyStore, NomadKeyStore, update
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.ops.api_keys import Change, KeyDocument, digest_of, made_key, with_key
from roost.ops.errors import RoostError


class Nomad:
    """Nomad's variables with check-and-set, as its documentation describes them."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.refuse: NomadRefusedError | None = None
        self.lock = threading.Lock()

    def get(self, path: str) -> dict[str, Any]:
        if self.stored is None:
            raise NomadRefusedError(404, "variable not found", path)
        return self.stored

    def put(self, path: str, body: dict[str, Any], cas: str) -> dict[str, Any]:
        with self.lock:
            if self.refuse:
                raise self.refuse
            index = self.stored["ModifyIndex"] if self.stored else 0
            if int(cas) != index:
                raise NomadRefusedError(409, "cas error", path)
            self.stored = {**body, "ModifyIndex": index + 1}
            return self.stored


def adding(name: str) -> Change:
    return lambda document: with_key(document, made_key({"name": name, "sha256": digest_of(name)}))


def nomad_store(nomad: Nomad) -> NomadKeyStore:
    return NomadKeyStore(cast("NomadClient", nomad))


@pytest.fixture(params=["nomad", "file"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], KeyStore]:
    """Return a maker of stores for the same place."""
    nomad = Nomad()
    if request.param == "nomad":
        return lambda: nomad_store(nomad)
    return lambda: FileKeyStore(tmp_path / "keys.json")


def test_an_absent_document_is_empty(new_store: Callable[[], KeyStore]) -> None:
    assert new_store().load() == (KeyDocument(), ABSENT)


def test_an_old_version_is_not_written_over_a_new_one(new_store: Callable[[], KeyStore]) -> None:
    ours, theirs = new_store(), new_store()
    _, seen = ours.load()
    update(theirs, adding("theirs"))
    with pytest.raises(ConflictError):
        ours.save(KeyDocument(), seen)
    update(ours, adding("ours"))
    assert [key.name for key in theirs.load()[0].keys] == ["theirs", "ours"]


def test_many_at_once_lose_nothing(new_store: Callable[[], KeyStore]) -> None:
    names = [f"key-{number}" for number in range(24)]

    def add(name: str) -> None:
        update(new_store(), adding(name), pause=lambda seconds: time.sleep(seconds / 50))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, names))
    assert sorted(key.name for key in new_store().load()[0].keys) == sorted(names)


def test_a_change_that_changes_nothing_writes_nothing(new_store: Callable[[], KeyStore]) -> None:
    update(new_store(), adding("one"))
    before = new_store().load()
    update(new_store(), lambda document: document)
    assert new_store().load() == before


def test_who_always_comes_too_late_gives_up() -> None:
    class Busy:
        def load(self) -> tuple[KeyDocument, str]:
            return KeyDocument(), "1"

        def save(self, _document: KeyDocument, _version: str, /) -> None:
            raise ConflictError("changed")

    with pytest.raises(ConflictError, match="all the time"):
        update(Busy(), adding("one"), pause=lambda _s: None)


def test_a_full_variable_says_what_to_do() -> None:
    nomad = Nomad()
    nomad.refuse = NomadRefusedError(400, "variables are limited to 64KiB in total size", "var")
    with pytest.raises(RoostError, match="takes no more keys") as caught:
        update(nomad_store(nomad), adding("one"))
    assert "--purge" in caught.value.fix


def test_the_playbook_makes_the_variable_once_and_keeps_what_is_in_it() -> None:
    nomad = Nomad()
    client = cast("NomadClient", nomad)
    assert key_store.ensure_variable_exists(client, dry_run=True)
    assert nomad.stored is None
    assert key_store.ensure_variable_exists(client)
    update(nomad_store(nomad), adding("one"))
    assert not key_store.ensure_variable_exists(client)
    assert [key.name for key in nomad_store(nomad).load()[0].keys] == ["one"]


def test_no_secret_reaches_the_store() -> None:
    nomad = Nomad()
    update(nomad_store(nomad), adding("roost-secret"))
    assert nomad.stored
    assert nomad.stored["Items"].keys() == {"keys"}
    assert digest_of("roost-secret") in nomad.stored["Items"]["keys"]


def test_a_file_keeps_its_mode_and_a_new_one_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    update(FileKeyStore(path), adding("one"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    update(FileKeyStore(path), adding("two"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_this_release_does_not_know_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"format": 9}')
    with pytest.raises(RoostError, match="not in a form"):
        update(FileKeyStore(path), adding("one"))
    assert path.read_text() == '{"format": 9}'


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="cannot be written"):
        update(FileKeyStore(tmp_path / "none" / "keys.json"), adding("one"))
