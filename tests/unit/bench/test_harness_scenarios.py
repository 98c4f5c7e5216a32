"""The bench of the agent's harness: scenarios can be done, and on bad models nothing ends badly."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
import structlog
from bench.harness.__main__ import MODELS, missed, one
from bench.harness.scenarios import scenarios
from bench.harness.simulated import Faults


def test_there_are_enough_with_names_of_their_own() -> None:
    names = [scenario.name for scenario in scenarios()]
    assert len(names) == len(set(names)) >= 40


def counted(way: str, faults: Faults, every: int = 1) -> Counter[str]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        return Counter(asyncio.run(one(way, scenario, faults, 1))[0] for scenario in scenarios()[::every])
    finally:
        structlog.reset_defaults()


def test_a_model_without_faults_finishes_all() -> None:
    assert set(counted("roost", Faults())) == {"finished"}


@pytest.mark.parametrize("name", ["bad_40", "always_repeats", "always_done", "lost_format_50"])
def test_bad_models_are_held(name: str) -> None:
    found = counted("roost", MODELS[name], every=3)
    assert set(found) <= {"finished", "honest"}


def test_the_plain_loop_ends_in_false_successes_so_that_the_bench_can_see_them() -> None:
    assert counted("plain", MODELS["false_done_50"], every=3)["false_success"] > 3


def test_what_was_promised_and_did_not_hold_is_said() -> None:
    figures = {"bad": {"x_roost": {"endless": 1}, "x_plain": {"overflow": 9}}}
    assert missed({**figures, "largest_request_percent_of_context": 91}) == [
        "x_roost: 1 endless", "a request was above 0.9 of the context",
    ]  # fmt: skip
