"""A second try at a stronger model, over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fakes import USAGE, WORDS
from tests.unit.gateway.choice.fleet import Fleet, fleet
from tests.unit.gateway.test_proxy_faults import metric

EMPTY: dict[str, object] = {"role": "assistant", "content": ""}
ON, OFF = {"X-Roost-Cascade": "on"}, {"X-Roost-Cascade": "off"}


def text_of(site: Fleet) -> object:
    """Return what the last answer says."""
    choices = site.answers[-1]["choices"]
    assert isinstance(choices, list)
    return choices[0]["message"]["content"]


async def used(site: Fleet) -> dict[str, tuple[int, int]]:
    """Return requests and tokens out by model."""
    _, document = await site.get("/v1/usage?by=model")
    data = document["data"]
    assert isinstance(data, list)
    return {row["model"]: (row["requests"], row["completion_tokens"]) for row in data}


async def test_an_empty_answer_is_tried_again_by_a_stronger_model(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router", state_dir=tmp_path) as site:
        site.engines["router"].message = EMPTY
        status, model, route = await site.ask("Hi")
        assert (status, model) == (200, "mid")
        assert route.startswith("slot=router; reason=light")
        assert site.headers[-1]["x-roost-cascade"] == "tiny:empty"
        assert text_of(site) == "".join(WORDS)
        assert await used(site) == {"tiny": (1, len(WORDS)), "mid": (1, len(WORDS))}
        newest = (await site.decisions())[0]
        tokens = {"tokens_in": USAGE["prompt_tokens"], "tokens_out": len(WORDS)}
        assert newest["cascade"] == [{"model": "tiny", "why": "empty", **tokens}]
        assert newest["answered_by"] == "mid"
        assert await metric(site.gateway, "roost_cascades_total", model="tiny", reason="empty") == 1


async def test_the_last_answer_is_passed_on_whatever_it_is(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router", "specialist") as site:
        for engine in site.engines.values():
            engine.message = EMPTY
        assert (await site.ask("Hi"))[:2] == (200, "mid")  # one step: not the strongest
        assert text_of(site) == ""
        assert len(site.engines["specialist"].chats) == 0


async def test_as_many_steps_as_the_site_wants(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router", "specialist", cascade_steps=2) as site:
        site.engines["router"].message = site.engines["main"].message = EMPTY
        assert (await site.ask("Hi"))[:2] == (200, "big")
        assert site.headers[-1]["x-roost-cascade"] == "tiny:empty, mid:empty"


@pytest.mark.parametrize("steps", [0, 1])
async def test_who_does_not_want_it_has_the_first_answer(tmp_path: Path, steps: int) -> None:
    async with fleet(tmp_path, "main", "router", cascade_steps=steps) as site:
        site.engines["router"].message = EMPTY
        assert (await site.ask("Hi", OFF if steps else None))[:2] == (200, "tiny")
        assert "x-roost-cascade" not in site.headers[-1]


async def test_explicit_names_stay_unless_the_client_asks_for_it(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router") as site:
        site.engines["router"].message = EMPTY
        assert (await site.ask("Hi", model="router"))[:2] == (200, "tiny")
        assert (await site.ask("Hi", ON, model="tiny"))[:2] == (200, "mid")
        assert (await site.ask("Hi", ON, model="main"))[:2] == (200, "mid")
        assert (await site.ask("Hi", {"X-Roost-Cascade": "maybe"}))[0] == 400


async def test_where_the_stronger_model_fails_the_first_answer_is_better_than_none(tmp_path: Path) -> None:
    async with fleet(tmp_path, "main", "router", state_dir=tmp_path) as site:
        site.engines["router"].message = {"role": "assistant", "content": "I'm sorry, but I can't do that."}
        site.engines["main"].mode = "error"
        assert (await site.ask("Hi"))[:2] == (200, "tiny")
        assert text_of(site) == "I'm sorry, but I can't do that."
        assert await used(site) == {"tiny": (1, len(WORDS))}


async def test_what_both_answers_cost_is_taken_from_the_rate(tmp_path: Path) -> None:
    tiers = {"critical": {"requests": 0, "tokens": 60}}  # more than one answer costs, and less than two
    async with fleet(tmp_path, "main", "router", tiers=tiers) as site:
        site.engines["router"].message = EMPTY
        await site.ask("Hi")
        _, document = await site.get("/v1/key")
        left = document["remaining"]
        assert isinstance(left, dict)
        assert left["tokens"] == 0


async def test_a_rejected_answer_that_is_passed_on_after_all_costs_the_rate_what_it_was(tmp_path: Path) -> None:
    tiers = {"critical": {"requests": 0, "tokens": 600}}
    async with fleet(tmp_path, "main", "router", tiers=tiers) as site:
        site.engines["router"].message = EMPTY
        site.engines["main"].mode = "error"
        assert (await site.ask("Hi"))[:2] == (200, "tiny")
        _, document = await site.get("/v1/key")
        left = document["remaining"]
        assert isinstance(left, dict)
        cost = USAGE["prompt_tokens"] + len(WORDS)
        assert 600 - cost <= left["tokens"] <= 600 - cost + 10  # it fills by ten a second
