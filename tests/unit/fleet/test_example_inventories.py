"""The inventories that we show: each can be planned, and says what its words promise."""

from __future__ import annotations

import pytest

from tests.support.example_fleets import INVENTORIES, facts, planned, texts
from tests.support.fleets import over


@pytest.mark.parametrize("name", INVENTORIES)
def test_an_example_is_planned_and_every_server_has_its_job(name: str) -> None:
    surveys, decided = planned(name)
    plan = decided.kept.plan
    assert over(plan, [survey.host for survey in surveys]) == []
    assert {p.host for p in plan.placed} == {survey.host.name for survey in surveys}
    written = texts(decided, {survey.machine: facts(survey.machine) for survey in surveys})
    if len(surveys) > 1:
        assert set(written) == {decided.kept.job(p) for p in plan.placed}
        for placed in plan.placed:
            allowed = ",".join([placed.host, *placed.spares])
            assert f'value     = "{allowed}"' in written[decided.kept.job(placed)]


def test_one_server_and_many_clients_share_the_work_and_the_head_stands_in_for_none() -> None:
    surveys, decided = planned("one-server")
    assert len(surveys) == 13
    mains = [p for p in decided.kept.plan.placed if p.slot == "main"]
    assert {p.host for p in mains} == {survey.host.name for survey in surveys}
    workers = {(p.model, p.quantisation) for p in mains if p.host.startswith("worker")}
    assert len(workers) == 1
    assert all(p.spares == () for p in mains if p.host.startswith("worker"))


def test_mixed_graphics_processors_get_what_each_can_hold() -> None:
    _, decided = planned("mixed-gpus")
    by_slot = {(p.host, p.slot): p for p in decided.kept.plan.placed}
    assert set(by_slot["rack", "coding"].split.gpus) <= {0, 1}
    assert not by_slot["rack", "coding"].slowed
    assert by_slot["rack", "coding"].model == "qwen3-coder-30b-a3b-instruct"
    assert by_slot["desk", "main"].split.gpus == (0,)
    assert by_slot["mini", "embedding"].split.gpus == ()
    assert by_slot["rack", "coding"].spares == ()  # no other machine has such cards
    assert "no spare" in next(line for line in decided.explanation if line.startswith("coding:"))
