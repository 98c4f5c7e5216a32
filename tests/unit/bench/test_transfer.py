"""Figures that a measurement leaves as they come, and those that are taken from another machine."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

from bench.context import met
from bench.harness.__main__ import missed
from bench.harness.real import Found, figures_of
from bench.transfer import Notes, taken


def test_what_is_known_is_in_the_file_at_any_time(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "figures.json", {"cores": 16})
    for said in (1, 2):
        notes.keep({"said": said})
        assert json.loads((tmp_path / "figures.json").read_text()) == {
            "machine": {"cores": 16},
            "measured": {"said": said},
        }
    Notes().keep({"said": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_figures_of_several_files_are_one_result_of_the_machine_that_they_name(tmp_path: Path) -> None:
    for name, figures in (("one", {"a": 1}), ("two", {"b": 2})):
        Notes(tmp_path / name, {"cores": 16}).keep(figures)
    notes = Notes()
    assert taken([tmp_path / "one", tmp_path / "two"], notes) == {"a": 1, "b": 2}
    assert notes.machine == {"cores": 16}


def test_a_long_conversation_without_an_answer_or_cut_off_misses_its_target() -> None:
    good = {"long_times": 100.2, "long_wanted_times": 100, "long_without_answer": 0, "long_largest_share": 0.87}
    assert met(good)
    assert not met({**good, "long_without_answer": 1})
    assert not met({**good, "long_times": 99.0})
    assert not met({**good, "long_largest_share": math.nextafter(0.9, 1)})


def test_a_real_model_is_held_to_the_same_as_simulated_ones() -> None:
    found = {"roost": Found(Counter(finished=1, false_success=2), asks=9, tokens=300, largest=7500), "plain": Found()}
    figures = figures_of(found)
    assert figures["real_smollm2_135m_roost"].startswith("1 of 3 finished; false 2, endless 0")
    assert missed(figures) == ["the real model: 2 false_success", "a request was above 0.9 of the context"]
