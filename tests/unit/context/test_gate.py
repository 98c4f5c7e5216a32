"""The content gate: raw, in short, or by reference; nothing in silence, and any byte can be had again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.context.blobs import BlobNotFoundError, BlobsFullError, FileBlobs, MemoryBlobs
from roost.context.briefing import brief, ends
from roost.context.gate import Form, Gate
from roost.context.outline import log, markdown, source, table
from roost.context.outline.lines import fitted
from roost.context.tokens import Estimate

TEXTS = st.text(max_size=400) | st.lists(st.text(max_size=80), max_size=200).map("\n".join)
NAMES = st.sampled_from(["", "a.py", "a.md", "a.csv", "a.tsv", "a.log", "a.jsonl", "https://x/y.ts?q=1"])


def gate() -> Gate:
    """Return a gate in memory."""
    return Gate(MemoryBlobs(), "me", Estimate())


@given(TEXTS, NAMES, st.integers(0, 300), st.none() | st.integers(0, 2000))
async def test_what_is_not_raw_says_so_and_can_be_had_again(
    text: str, name: str, tokens: int, most_bytes: int | None
) -> None:
    checked = gate()
    admitted = await checked.admit(text, tokens, name=name, most_bytes=most_bytes)
    whole = text.encode("utf-8", "surrogatepass")
    assert admitted.size == len(whole)
    if admitted.form is Form.RAW:
        assert admitted.text == text
        assert admitted.tokens <= tokens
        return
    assert admitted.reference in admitted.text
    assert str(len(whole)) in admitted.text
    assert checked.blobs.get("me", admitted.reference) == whole
    if admitted.form is Form.BRIEFING:
        assert admitted.tokens <= tokens


@given(TEXTS, st.integers(0, 1000))
def test_ends_stay_within_their_room(text: str, room: int) -> None:
    shown = ends(text, room)
    assert shown == text or len(shown.encode("utf-8", "replace")) <= max(room, 60)


async def test_what_fits_comes_in_raw_and_is_kept_nowhere() -> None:
    admitted = await gate().admit("short", 100)
    assert (admitted.form, admitted.text, admitted.reference) == (Form.RAW, "short", "")


async def test_a_source_file_comes_in_as_its_declarations() -> None:
    text = "import os\n\n\n" + "\n\n".join(
        f"class Thing{n}:\n    def act(self, value: int) -> str:\n        return {'x' * 400!r}" for n in range(40)
    )
    admitted = await gate().admit(text, 1500, name="things.py")
    assert admitted.form is Form.BRIEFING
    assert "declarations" in admitted.text
    assert "class Thing39  [lines" in admitted.text
    assert "def act(self, value: int) -> str" in admitted.text
    place = admitted.text.split("class Thing7  [lines ")[1].split("]")[0]
    first, last = (int(part) for part in place.split("-"))
    checked = gate()
    reference = (await checked.admit(text, 1, name="things.py")).reference
    lines = checked.drill(reference, 0, len(text)).splitlines()[first - 1 : last]
    assert [line.strip() for line in lines[:2]] == ["class Thing7:", "def act(self, value: int) -> str:"]


SOURCES = {
    "a.py": ("class A:\n    async def b(self):\n        pass\n", ["class A", "async def b(self)"]),
    "a.sh": ("greet() {\n  echo hi\n}\n", ["greet()"]),
    "a.c": ("struct p { int x; };\nint add(int a, int b) { return a + b; }\n", ["struct p", "int add(int a, int b)"]),
    "a.cpp": ("namespace n { class C { void m() {} }; }\n", ["namespace n", "class C", "void m()"]),
    "a.go": ("package p\ntype T struct{}\nfunc (t T) M() int { return 1 }\n", ["T struct{}", "func (t T) M() int"]),
    "a.java": ("class A { int f(int x) { return x; } }\n", ["class A", "int f(int x)"]),
    "a.js": ("export class A { m(x) { return x } }\nfunction f() {}\n", ["class A", "m(x)", "function f()"]),
    "a.rs": ("pub struct S;\nimpl S { fn new() -> S { S } }\n", ["pub struct S;", "impl S", "fn new() -> S"]),
    "a.ts": ("interface I { x: number }\nfunction f(a: I): void {}\n", ["interface I", "function f(a: I): void"]),
    "a.tsx": ("function View() { return <b>hi</b>; }\n", ["function View()"]),
}


@pytest.mark.parametrize("name", SOURCES)
def test_declarations_of_each_language_are_found(name: str) -> None:
    text, expected = SOURCES[name]
    found = [entry.text for entry in source.entries(text, source.language_of(name))]
    assert found == expected


@pytest.mark.parametrize("name", ["a.py", "a.go", "a.ts", "a.rs"])
def test_without_grammars_lines_like_declarations_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_parser", lambda _language: None)
    text, _ = SOURCES[name]
    assert source.entries(text, source.language_of(name))


def test_headings_have_the_lines_of_their_sections() -> None:
    text = "Title\n=====\n\n## One\n```\n# no heading\n```\n### Deep\n## Two ##\nend"
    assert [entry.shown() for entry in markdown.entries(text)] == [
        "Title  [lines 1-10]",
        "  One  [lines 4-8]",
        "    Deep  [lines 8-8]",
        "  Two  [lines 9-10]",
    ]


def test_a_table_has_columns_rows_and_samples() -> None:
    text = "name,size\n" + "\n".join(f"file{n},{n}" for n in range(100))
    shown = fitted(table.delimited(text), 1000)
    assert "100 rows below the first, 2 columns" in shown
    assert "size: numbers 0 to 99" in shown
    assert "file99,99" in shown


def test_json_lines_and_documents_have_keys() -> None:
    lines = "\n".join(json.dumps({"id": n, **({"note": "x"} if n % 2 else {})}) for n in range(10))
    assert "note: text, in 5 of 10" in fitted(table.json_lines(lines), 1000)
    document = json.dumps({"users": [{"name": "Ada"}, {"name": "Max"}], "total": 2})
    shown = fitted(table.document(document), 1000)
    assert "users: list of 2" in shown
    assert 'name: "Ada"' in shown


def test_a_log_has_levels_grave_lines_and_what_comes_again() -> None:
    lines = [f"2026-11-26 03:00:{n % 60:02d} INFO request {n} took {n} ms" for n in range(200)]
    lines[77] = "2026-11-26 03:01:17 ERROR disk is full"
    shown = fitted(log.entries("\n".join(lines)), 2000)
    assert "INFO 199, ERROR 1" in shown
    assert "78: 2026-11-26 03:01:17 ERROR disk is full" in shown
    assert "199 times INFO request # took # ms (first: line 1)" in shown


@given(TEXTS, NAMES, st.integers(0, 2000))
def test_any_text_can_be_put_in_short(text: str, name: str, room: int) -> None:
    made = brief(text, name, room)
    assert made.what in {"beginning and end", "declarations", "headings", "shape"}
    if made.what == "beginning and end":
        assert made.text == ends(text, room)


def test_files_keep_owners_apart_and_find_everything_again(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    reference = blobs.put("me", b"0123456789")
    assert FileBlobs(tmp_path).get("me", reference, 2, 3) == b"234"
    assert blobs.size("me", reference) == 10
    with pytest.raises(BlobNotFoundError):
        blobs.get("you", reference)
    for wrong in ("blob:../../etc", "blob:" + "0" * 24, "x"):
        with pytest.raises(BlobNotFoundError):
            blobs.get("me", wrong)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")} == {0}
    blobs.remove("me", reference)
    with pytest.raises(BlobNotFoundError):
        blobs.get("me", reference)


def test_a_full_store_says_so_and_loses_nothing(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path, limit=15)
    first = blobs.put("me", b"0123456789")
    assert blobs.put("me", b"0123456789") == first
    with pytest.raises(BlobsFullError, match="15 bytes"):
        blobs.put("me", b"another one")
    assert blobs.put("you", b"another one")
    with pytest.raises(BlobsFullError):
        FileBlobs(tmp_path, limit=15).put("me", b"another one")
    assert blobs.get("me", first) == b"0123456789"


async def test_where_the_whole_cannot_be_kept_nothing_is_cut() -> None:
    with pytest.raises(BlobsFullError):
        await Gate(MemoryBlobs(limit=10), "me", Estimate()).admit("x" * 1000, 5)
