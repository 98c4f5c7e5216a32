"""What keys allowed for good, on disk: a file that cannot be used is not lost, each key displaces its own entries."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from roost.agent.permission.allowed import MOST, AllowedStore
from roost.ops.errors import RoostError

DAMAGED = b'[{"owner": "bob", "tool": "mail", "mark": "ma'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent/allowed.json"


def damaged(file: Path) -> AllowedStore:
    file.parent.mkdir()
    file.write_bytes(DAMAGED)
    return AllowedStore(file)


def unreadable(file: Path) -> AllowedStore:
    """Return a store whose file cannot be read, for root neither."""
    file.mkdir(parents=True)
    return AllowedStore(file)


def marks(store: AllowedStore, owner: str) -> list[str]:
    return [one.mark for one in store.of(owner)]


@pytest.mark.parametrize("make", [damaged, unreadable])
def test_what_cannot_be_read_allows_nothing_and_who_looks_is_told(file: Path, make: object) -> None:
    assert callable(make)
    store = make(file)
    assert store.has("bob", "mail") is False
    with pytest.raises(RoostError) as refused:
        store.of("bob")
    assert str(file) in refused.value.message
    assert refused.value.fix


def test_a_damaged_file_is_kept_aside_by_the_next_change(file: Path) -> None:
    store = damaged(file)
    with capture_logs() as logs:
        store.add("alice", "wiki", "wiki@1")
    assert marks(store, "alice") == ["wiki@1"]
    (aside,) = file.parent.glob("allowed.json.broken-*")
    assert aside.read_bytes() == DAMAGED
    assert [(one["event"], one["log_level"], one["moved_to"]) for one in logs] == [
        ("allowed_file_broken", "critical", str(aside))
    ]


def test_a_removal_keeps_a_damaged_file_aside_too(file: Path) -> None:
    store = damaged(file)
    assert store.remove("bob", "mail") == []
    (aside,) = file.parent.glob("allowed.json.broken-*")
    assert aside.read_bytes() == DAMAGED
    assert marks(store, "bob") == []


def test_a_file_that_cannot_be_read_is_not_written(file: Path) -> None:
    store = unreadable(file)
    for change in (lambda: store.add("alice", "wiki", "wiki@1"), lambda: store.remove("alice", "wiki")):
        with pytest.raises(RoostError, match="cannot be read"):
            change()
    assert file.is_dir()


def test_one_key_that_allows_much_displaces_its_own_oldest_entries_only(file: Path) -> None:
    store = AllowedStore(file)
    store.add("bob", "mail", "mail@1")
    for number in range(MOST + 2):
        store.add("alice", "wiki", f"wiki@{number}")
    assert marks(store, "bob") == ["mail@1"]
    assert marks(store, "alice") == [f"wiki@{number}" for number in range(2, MOST + 2)]
    store.add("alice", "wiki", "wiki@2")  # allowed once more: the latest now
    assert marks(store, "alice")[-1] == "wiki@2"
    assert len(marks(store, "alice")) == MOST
