"""Results and tables of the benchmarks."""

from __future__ import annotations

import json
from dataclasses import replace as replace_fields
from pathlib import Path

import pytest
from bench.bootstrap import steps_in, tasks_in
from bench.downloads import figures, missed
from bench.results import load, machine, save
from bench.table import BEGIN, END, PAGE, render, replace

from roost.ops.fetch import BLOCK_BYTES
from tests.support.killed import Kills


def test_a_result_says_what_machine_and_revision(tmp_path: Path) -> None:
    path = save("sample", {"seconds": 1.5}, folder=tmp_path)
    written = json.loads(path.read_text())
    assert path.name == f"{written['date']}-sample.json"
    assert set(written["machine"]) == {"cores", "cpu", "memory_mib", "kernel", "load"}
    assert written["revision"].rstrip("+").isalnum()
    assert load(tmp_path)[0]["measured"] == {"seconds": 1.5}


def test_the_table_shows_the_newest_of_each_name() -> None:
    base = {"revision": "abc", "machine": machine()}
    old = {**base, "name": "one", "date": "2026-01-01", "measured": {"seconds": 9}}
    new = {**base, "name": "one", "date": "2026-02-01", "measured": {"seconds": 3, "all": [3, 4]}}
    shown = render([old, new])
    assert "| seconds | 3 |" in shown
    assert "| 9 |" not in shown
    assert "[3, 4]" not in shown


def test_only_what_is_between_the_markers_is_replaced() -> None:
    whole, part = (BEGIN.format(""), END.format("")), (BEGIN.format(" card"), END.format(" card"))
    page = f"before\n{whole[0]}\nold\n{whole[1]}\nafter\n{part[0]}\nold\n{part[1]}\n"
    once = replace(page, "new")
    assert once == page.replace("old", "\nnew", 1)
    assert replace(once, "new") == once
    assert replace(page, "new", "card") == page.replace(f"{part[0]}\nold", f"{part[0]}\n\nnew")
    with pytest.raises(ValueError, match="markers"):
        replace("nothing", "new")
    assert replace(PAGE.read_text(), "x")


def test_tasks_and_steps_are_read_from_what_was_printed() -> None:
    log = "2026-11-24T00:26:11Z task: docker: Install\n2026-11-24T00:26:12Z ok: docker : Install: {\n  }\n"
    assert tasks_in(log + "2026-11-24T00:26:12Z task: nomad: Start\n") == 2
    assert steps_in("✓ docker       14 s   2 changes\n✓ verify  1 s\n") == {"docker": 14.0, "verify": 1.0}


def test_killed_downloads_keep_their_promise_or_say_which_not() -> None:
    good = Kills(kills=3, finished=0, corrupt=0, whole=True, twice=[0, 1024, 2048], received=9)
    assert missed(good) == []
    assert figures(good, 1.2)["sent_twice_average_kib"] == 1.0
    bad = replace_fields(good, corrupt=1, whole=False, twice=[BLOCK_BYTES + 1])
    assert [text.split()[0] for text in missed(bad)] == ["1", "the", str(BLOCK_BYTES + 1)]
