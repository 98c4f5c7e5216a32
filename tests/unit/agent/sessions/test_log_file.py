"""Files of JSON lines: what a crash leaves behind, damage, writers side by side, a full disk."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.agent.sessions.log_file import BROKEN, append, read
from roost.agent.sessions.records import Begin, Body, EventBody, MessageBody, line_of, title_of
from roost.durable.lines import BLOCK_BYTES


def said(text: str) -> MessageBody:
    return MessageBody(role="user", text=text)


def test_records_are_numbered_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append(path, [Begin(session="a", owner="alice"), said("one")])
    append(path, [said("two")])
    contents = read(path)
    assert [record.seq for record in contents.records] == [1, 2, 3]
    assert [record.body for record in contents.records[1:]] == [said("one"), said("two")]
    assert [record.seq for record in read(path, after=2).records] == [3]
    assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(), min_size=1, max_size=4), cut=st.integers(min_value=1, max_value=400))
def test_a_file_cut_off_anywhere_goes_on_with_every_whole_record(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    made = append(path, [EventBody(name="text", detail={"text": text}) for text in texts])
    whole = path.read_bytes()
    kept = whole[: max(0, len(whole) - cut)]
    path.write_bytes(kept)
    lines = kept.count(b"\n")
    # a record whose line only lacks its end is whole
    expected = lines + (1 if whole[: len(kept) + 1].endswith(b"\n") and not kept.endswith(b"\n") and kept else 0)
    added = append(path, [said("after")])
    records = read(path).records
    assert list(records) == [*made[:expected], *added]
    assert [record.seq for record in records] == list(range(1, expected + 2))
    rest = kept[len(b"".join(map(line_of, made[:expected]))) :]
    aside = path.with_name(path.name + BROKEN)
    assert (aside.read_bytes() == rest + b"\n") if rest else not aside.exists()


def test_a_damaged_line_is_counted_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append(path, [said("one"), said("two"), said("three")])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * 20 + b"\n" + lines[2])
    contents = read(path)
    assert (len(contents.records), contents.damaged) == (2, 1)


def test_numbers_go_on_after_a_damaged_last_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append(path, [said("one"), said("two")])
    with path.open("ab") as stream:
        stream.write(b"{}\n")
    assert append(path, [said("three")])[0].seq == 3


def test_a_line_longer_than_a_block_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    append(path, [said("x" * (BLOCK_BYTES * 2 + 7))])
    assert append(path, [said("y")])[0].seq == 2


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    append(path, [said("one")])
    before = path.read_bytes()
    real = os.pwrite

    def half(handle: int, data: bytes, offset: int) -> int:
        if len(data) > 10:
            return real(handle, data[:10], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="No space"):
        append(path, [said("two" * 10)])
    assert path.read_bytes() == before


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        append(tmp_path / "a.jsonl", [said("one")])


def _many(path: Path, name: str, count: int) -> None:
    for number in range(count):
        append(path, [said(f"{name} {number}")])


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    writers = [multiprocessing.Process(target=_many, args=(path, str(n), 25)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    records = read(path).records
    assert [record.seq for record in records] == list(range(1, 101))
    bodies: list[Body] = [record.body for record in records]
    assert {body.text for body in bodies if isinstance(body, MessageBody)} == {
        f"{n} {number}" for n in range(4) for number in range(25)
    }


@pytest.mark.parametrize(
    ("text", "title"),
    [("", ""), ("\n  Hello \nmore", "Hello"), ("x" * 200, "x" * 79 + "…")],
)
def test_a_title_is_made_of_the_first_line(text: str, title: str) -> None:
    assert title_of(text) == title
