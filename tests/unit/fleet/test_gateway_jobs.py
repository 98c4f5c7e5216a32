"""Several gateways as jobs: what is asked for, what it needs, and what it leaves alone."""

from __future__ import annotations

import pytest

from roost.fleet.agent_jobs import GATEWAY_JOB, AgentJob
from roost.fleet.agent_variables import AGENT_JOB
from roost.fleet.job_secrets import job_secrets, peer_key
from roost.fleet.job_text import render_job
from roost.fleet.site_jobs import site_jobs, stale_jobs
from roost.ops.errors import RoostError
from tests.support.gateway import REPOSITORY
from tests.unit.fleet.golden_jobs import FLEET, catalogue, programs, wish

SLOT = {"slot": "main", "model": "smollm2-135m-instruct", "context_size": 2048, "parallel": 1, "cache_ram_mib": 0}
LISTEN = {"listen": "192.0.2.7:8443"}


def agents(runtime: str, **more: object) -> dict[str, AgentJob]:
    """Return the jobs that are gateways."""
    jobs = site_jobs(wish(runtime, [], SLOT, more), catalogue(), programs(runtime))
    return {job.name: job for job in jobs if isinstance(job, AgentJob)}


def test_one_host_has_the_agent_alone() -> None:
    found = agents("docker", **LISTEN)
    assert list(found) == [AGENT_JOB]
    assert not [name for name in found[AGENT_JOB].env if "PEER" in name]
    assert "peer" not in render_job(REPOSITORY / "nomad", found[AGENT_JOB])


@pytest.mark.parametrize("runtime", ["docker", "local"])
def test_further_gateways_stand_beside_it_and_both_register_one_service(runtime: str) -> None:
    found = agents(runtime, **LISTEN, gateway_replicas=2)
    assert {name: job.count for name, job in found.items()} == {AGENT_JOB: 1, GATEWAY_JOB: 2}
    assert [name for name, job in found.items() if job.args[-1:] == ["gateway"]] == [GATEWAY_JOB]
    for name, job in found.items():
        text = render_job(REPOSITORY / "nomad", job)
        assert f'name     = "{GATEWAY_JOB}"' in text
        assert "static = 8443" in text
        assert job.env["ROOST_LISTEN"] == "${NOMAD_IP_tls}:${NOMAD_PORT_tls}"
        own = [file.variable for file in job.secret_files if file.name in {"engine_key", "peer_key", "peer_ca"}]
        assert own == [f"nomad/jobs/{name}"] * 3
        keys = next(file for file in job.secret_files if file.name == "keys.json")
        assert keys.variable == "nomad/jobs/roost-agent/agent"  # one document for all


@pytest.mark.parametrize(("runtime", "folder"), [("docker", "/tls"), ("local", "/srv/gateway-tls")])
def test_in_a_fleet_each_answers_with_the_certificate_of_its_own_machine(runtime: str, folder: str) -> None:
    fleet = {**FLEET, **LISTEN, "gateway_replicas": 2, "gateway_tls_dir": "/srv/gateway-tls"}
    jobs = site_jobs(wish(runtime, [], SLOT, fleet), catalogue(), programs(runtime))
    found = {job.name: job for job in jobs if isinstance(job, AgentJob)}
    further, first = found[GATEWAY_JOB], found[AGENT_JOB]
    assert further.env["ROOST_TLS_CERT"] == f"{folder}/cert.pem"
    assert further.env["ROOST_TLS_KEY"] == f"{folder}/key.pem"
    text = render_job(REPOSITORY / "nomad", further)
    assert "tls_cert" not in text
    assert ('"roost-gateway-tls"' in text) == (runtime == "docker")
    # The agent is tied to one machine: its certificate is that machine's, and goes the way of its other secrets.
    assert first.env["ROOST_TLS_CERT"] == "${NOMAD_SECRETS_DIR}/tls_cert"
    assert {file.reread for file in first.secret_files if file.name.startswith("tls_")} == {True}, "never restarted for"
    assert "roost-gateway-tls" not in render_job(REPOSITORY / "nomad", first)
    secrets = job_secrets(jobs, engine_key="e", api_keys=["first"], tls=("c", "k"), authority="ca", engine_ca="ca")
    assert "tls_key" not in secrets[f"nomad/jobs/{GATEWAY_JOB}"], "no key of a machine leaves it"
    assert secrets[f"nomad/jobs/{AGENT_JOB}"]["tls_key"] == "k"


def test_none_takes_the_port_of_the_agent_on_its_machine() -> None:
    """Were it placed first, the agent, which is tied to that machine, could be placed nowhere."""
    fleet = {**FLEET, **LISTEN, "gateway_replicas": 2}
    jobs = site_jobs(wish("docker", [], SLOT, fleet), catalogue(), programs("docker"))
    found = {job.name: job for job in jobs if isinstance(job, AgentJob)}
    [home] = found[AGENT_JOB].nodes
    text = render_job(REPOSITORY / "nomad", found[GATEWAY_JOB])
    constraint = text[text.index("constraint {") :].split("}\n")[0]
    assert 'operator  = "!="' in constraint
    assert f'value     = "{home}"' in constraint
    assert '"!="' not in render_job(REPOSITORY / "nomad", found[AGENT_JOB])


def test_they_need_an_address_for_each_other() -> None:
    with pytest.raises(RoostError, match="reach each other") as caught:
        agents("docker", gateway_replicas=1)
    assert "api_listen_address" in caught.value.fix


def test_the_key_among_them_is_no_api_key_and_goes_to_them_only() -> None:
    jobs = site_jobs(wish("docker", [], SLOT, {**LISTEN, "gateway_replicas": 1}), catalogue(), programs("docker"))
    secrets = job_secrets(jobs, engine_key="e", api_keys=["first"], tls=("c", "k"), authority="ca")
    for name in (AGENT_JOB, GATEWAY_JOB):
        assert secrets[f"nomad/jobs/{name}"]["peer_key"] == peer_key("first") != "first"
        assert secrets[f"nomad/jobs/{name}"]["peer_ca"] == "ca"
    assert "peer_key" not in secrets["nomad/jobs/roost-model-main"]
    one = [job for job in jobs if job.name != GATEWAY_JOB]
    alone = job_secrets(one, engine_key="e", api_keys=["first"], tls=("c", "k"))
    assert "peer_key" not in alone[f"nomad/jobs/{AGENT_JOB}"]


def test_gateways_that_are_wanted_no_more_are_stopped() -> None:
    jobs = list(agents("docker", **LISTEN).values())
    assert stale_jobs([GATEWAY_JOB, AGENT_JOB, "else"], jobs) == [GATEWAY_JOB]
    assert stale_jobs([GATEWAY_JOB], list(agents("docker", **LISTEN, gateway_replicas=1).values())) == []
