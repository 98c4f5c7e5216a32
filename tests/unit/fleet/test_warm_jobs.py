"""What a job says for the agent arrives there: the two ends of the tags and of the settings."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from roost.fleet.agent_jobs import AgentJob
from roost.fleet.job_text import render_job
from roost.fleet.jobs import ModelServerJob
from roost.fleet.site_jobs import site_jobs
from roost.fleet.site_wish import SlotWish
from roost.gateway.settings import Settings
from roost.gateway.tags import Said, parse_pools, read_tags
from tests.unit.fleet.golden_jobs import catalogue, programs, wish
from tests.unit.fleet.test_jobs import TEMPLATES

GIB = 1 << 30
SLOT = {"slot": "main", "context_size": 4096}


def made(slot: dict[str, object], **more: object) -> tuple[ModelServerJob, AgentJob]:
    server, agent = site_jobs(
        wish("docker", [], {**SLOT, "model": "smollm2-135m-instruct", **slot}, more), catalogue(), programs("docker")
    )
    assert isinstance(server, ModelServerJob)
    assert isinstance(agent, AgentJob)
    return server, agent


def test_tags_are_read_as_they_were_written() -> None:
    server, _ = made(
        {"memory": {"a/gpu0": 5 * GIB, "host": GIB}, "keep_warm": True, "save_slots": True, "adapters": ["x/p.gguf"]}
    )
    said = read_tags(re.findall(r'^ +"(\w+=.*)",$', render_job(TEMPLATES, server), re.MULTILINE))
    assert said == Said(
        engine="llama.cpp",
        models=(server.model,),
        memory={"a/gpu0": 5 * GIB, "host": GIB},
        tier="embedded",
        adapters=("p",),
        keep_warm=True,
        keeps_slots=True,
        slot="main",
    )


def test_without_a_plan_a_server_holds_its_limit_of_the_machine() -> None:
    server, _ = made({"save_slots": False})
    assert read_tags(server.tags) == Said(
        engine="llama.cpp",
        models=(server.model,),
        memory={"host": server.memory_mib << 20},
        tier="embedded",
        slot="main",
    )


def test_on_demand_is_registered_and_not_started() -> None:
    assert "count = 0\n" in render_job(TEMPLATES, made({"on_demand": True})[0])
    assert "count = 1\n" in render_job(TEMPLATES, made({})[0])


def test_a_slot_is_not_both_warm_and_on_demand() -> None:
    with pytest.raises(ValidationError, match="not both"):
        SlotWish.model_validate({**SLOT, "model": "m", "keep_warm": True, "on_demand": True})


def test_saving_slots_leaves_time_for_it() -> None:
    saving, _ = made({"save_slots": True})
    assert 'shutdown_delay = "3s"' in render_job(TEMPLATES, saving)
    assert "shutdown_delay" not in render_job(TEMPLATES, made({"save_slots": False})[0])


def test_with_adapters_prompts_are_not_cached_across_them() -> None:
    def cache_of(job: ModelServerJob) -> str:
        return job.args[job.args.index("--cache-ram") + 1]

    assert cache_of(made({"cache_ram_mib": 64})[0]) == "64"
    assert cache_of(made({"cache_ram_mib": 64, "adapters": ["x/p.gguf"]})[0]) == "0"


def test_the_agent_is_told_what_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = {"a/gpu0": 24 * GIB, "host": 60 * GIB}
    _, agent = made({}, idle_stop_s=900, min_stay_s=45, fallbacks={"main": ["router"]}, memory_pools=pools)
    for name, value in agent.env.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.idle_stop_s == 900
    assert settings.min_stay_s == 45
    assert settings.model_fallbacks == {"main": ["router"]}
    assert parse_pools(settings.memory_pools) == pools


@pytest.mark.parametrize("text", ["gpu", "gpu=", "=5", "gpu=-1", "gpu=1.5"])
def test_pools_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Settings(memory_pools=text)
