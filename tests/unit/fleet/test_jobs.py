"""The jobs' text: what the template must say, whichever driver."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from roost.fleet import agent_jobs, job_text, jobs, model_jobs
from roost.models.footprint import ServerSettings
from roost.ops.listen_keeper import FOLDER, NAME

TEMPLATES = Path(__file__).parents[3] / "nomad"
WHO = jobs.Identity("roost-engine", "roost", 8362, 8362)
SETTINGS = ServerSettings(4096, parallel=2, cache_ram_mib=128)
CHOICE = jobs.SlotChoice("main", "tiny", "0123456789abcdef/tiny.gguf", SETTINGS, 700)
DOCKER = jobs.EnginePlace("docker", "llama.cpp", "/srv/models", image="roost/llama-server:1")
LOCAL = jobs.EnginePlace(
    "raw_exec",
    "llama.cpp",
    "/srv/models",
    command="/tree/ld.so",
    leading_args=("/tree/llama-server",),
    work_dir="/tree/b",
)
AGENT = agent_jobs.AgentChoice("docker", "127.0.0.1", 8360, 256, "info", image="roost/agent:1")


def render_model(place: jobs.EnginePlace, choice: jobs.SlotChoice = CHOICE) -> str:
    return job_text.render_job(
        TEMPLATES, model_jobs.model_server_job(choice, place, WHO, datacenter="dc1", bind="127.0.0.1")
    )


# Nothing of this may be read as HCL: interpolation, directives, escapes that only JSON knows.
NAMES_OF_STRANGERS = (
    '${file("/etc/shadow")}',
    "%{ if true }x%{ endif }",
    "a\bb\fc",
    'quote" }\n}',
    "$${x} %%{y}",
    "${NOMAD_",
)


def render_with_template(name: str) -> str:
    return render_model(LOCAL, dataclasses.replace(CHOICE, chat_template=name))


def render_agent(choice: agent_jobs.AgentChoice = AGENT) -> str:
    return job_text.render_job(TEMPLATES, agent_jobs.agent_job(choice, WHO, datacenter="dc1"))


def test_the_agent_knows_the_configured_cost_mode() -> None:
    assert re.search(r'ROOST_COST_MODE\s+= "fast"', render_agent(dataclasses.replace(AGENT, cost_mode="fast")))
    assert "ROOST_COST_MODE" not in render_agent()


@pytest.mark.parametrize("place", [DOCKER, LOCAL], ids=["docker", "raw_exec"])
def test_model_server_needs_its_key_and_binds_to_loopback(place: jobs.EnginePlace) -> None:
    text = render_model(place)
    assert re.search(r'"--api-key-file",\s+"\$\{NOMAD_SECRETS_DIR\}/engine-key"', text)
    assert re.search(r'"--host",\s+"127\.0\.0\.1"', text)
    assert 'host_network = "loopback"' in text
    assert 'nomadVar \\"nomad/jobs/roost-model-main\\"' in text


def test_context_is_for_all_slots_together() -> None:
    assert re.search(r'"--ctx-size",\s+"8192",\s+"--parallel",\s+"2"', render_model(DOCKER))


def test_container_is_locked_down() -> None:
    for text in (render_model(DOCKER), render_agent()):
        assert "readonly_rootfs = true" in text
        assert 'cap_drop        = ["all"]' in text
        assert '"no-new-privileges"' in text
        assert "force_pull      = false" in text


def test_container_reads_models_from_the_volume_and_a_process_from_the_folder() -> None:
    assert '"/models/0123456789abcdef/tiny.gguf"' in render_model(DOCKER)
    assert '"/srv/models/0123456789abcdef/tiny.gguf"' in render_model(LOCAL)
    assert "volume_mount" not in render_model(LOCAL)


def test_user_is_numbers_in_a_container_and_a_name_outside() -> None:
    assert 'user   = "8362:8362"' in render_model(DOCKER)
    local = render_model(LOCAL)
    assert "user   =" not in local
    assert 'command  = "/usr/bin/setpriv"' in local
    assert re.search(r'"--reuid",\s+"roost-engine",\s+"--regid",\s+"roost",\s+"--clear-groups"', local)


def test_threads_only_when_chosen() -> None:
    assert '"--threads"' not in render_model(DOCKER)
    assert re.search(r'"--threads",\s+"3"', render_model(dataclasses.replace(DOCKER, threads=3)))


def test_temperature_only_when_chosen() -> None:
    warm = dataclasses.replace(CHOICE, temperature=0.3)
    assert '"--temp"' not in render_model(DOCKER)
    assert re.search(r'"--temp",\s+"0\.3"', render_model(DOCKER, warm))


def test_agent_listens_with_tls_only_when_told() -> None:
    plain = render_agent()
    assert "tls_key" not in plain
    listening = render_agent(
        agent_jobs.AgentChoice("docker", "127.0.0.1", 8360, 256, "info", image="roost/agent:1", listen="192.0.2.1:8443")
    )
    assert 'ROOST_LISTEN = "192.0.2.1:8443"' in listening
    assert "${NOMAD_SECRETS_DIR}/tls_key" in listening


def test_the_agent_rereads_its_keys_and_keeps_its_state() -> None:
    text = render_agent()
    keys = text[text.index('"${NOMAD_SECRETS_DIR}/keys.json"') :]
    assert 'nomadVar \\"nomad/jobs/roost-agent/agent\\"' in keys
    assert keys.index('change_mode = "noop"') < keys.index("resources {")
    assert text.count('change_mode = "restart"') == 1  # the engine's key: who has an open connection keeps the old one
    assert 'source = "roost-agent"' in text
    assert 'ROOST_STATE_DIR = "/state"' in text
    assert f'ROOST_LISTEN_KEEPER = "/state/{FOLDER}/{NAME}"' in text
    local = render_agent(agent_jobs.AgentChoice("raw_exec", "127.0.0.1", 8360, 256, "info", state_dir="/srv/agent"))
    assert 'ROOST_STATE_DIR = "/srv/agent"' in local
    assert f'ROOST_LISTEN_KEEPER = "/srv/agent/{FOLDER}/{NAME}"' in local
    assert "volume" not in local


def test_no_secret_is_in_the_text_of_a_job() -> None:
    text = render_agent()
    assert "ROOST_API_KEYS_FILE" in text
    assert "roost-model-" in text
    assert not re.search(r"(?i)bearer|token\s*=", text)


def test_strings_cannot_break_out_of_their_quotes() -> None:
    nasty = dataclasses.replace(CHOICE, model='a"b\\c\nd')
    assert '"a\\"b\\\\c\\nd"' in render_model(DOCKER, nasty)


def test_every_job_reverts_a_bad_update_and_restarts_for_ever() -> None:
    for text in (render_model(DOCKER), render_model(LOCAL), render_agent()):
        assert re.search(r"auto_revert\s+= true", text)
        assert re.search(r'mode\s+= "delay"', text)


def test_the_other_engine_gets_its_settings_as_environment() -> None:
    place = jobs.EnginePlace(
        "raw_exec",
        "llama-cpp-python",
        "/srv/models",
        command="/usr/bin/python3",
        leading_args=("-m", "server"),
        env={"PYTHONPATH": "/tree/app"},
    )
    warm = dataclasses.replace(CHOICE, file="0/tiny.gguf", temperature=0.3)
    text = render_model(place, warm)
    assert re.search(r'"/usr/bin/python3",\s+"-m",\s+"server",\s+\]', text)
    for line in (
        'PYTHONPATH = "/tree/app"',
        'ROOST_ENGINE_CONTEXT = "4096"',
        'ROOST_ENGINE_HOST = "127.0.0.1"',
        'ROOST_ENGINE_KEY_FILE = "${NOMAD_SECRETS_DIR}/engine-key"',
        'ROOST_ENGINE_MODEL = "/srv/models/0/tiny.gguf"',
        'ROOST_ENGINE_PORT = "${NOMAD_PORT_http}"',
        'ROOST_ENGINE_TEMPERATURE = "0.3"',
    ):
        assert line in text
    assert '"engine=llama-cpp-python"' in text
    assert "ROOST_ENGINE_TEMPERATURE" not in render_model(place)


@pytest.mark.parametrize("name", NAMES_OF_STRANGERS)
def test_no_name_is_read_as_hcl(name: str) -> None:
    written = job_text.hcl_string(name)
    assert not re.search(r"[$%]\{", written)
    assert not re.search(r"(?<!\\)\\[bf]", written)
    assert f"{written}," in render_with_template(name)


def test_what_nomad_fills_in_stays() -> None:
    assert job_text.hcl_string("${NOMAD_SECRETS_DIR}/engine-key") == '"${NOMAD_SECRETS_DIR}/engine-key"'
