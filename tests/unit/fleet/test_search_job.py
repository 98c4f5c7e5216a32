"""SearXNG as a job: what it is told, what Nomad gets, its secret, and when it goes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from roost.fleet.agent_variables import AGENT_JOB
from roost.fleet.job_secrets import job_secrets
from roost.fleet.job_text import render_job
from roost.fleet.jobs import SEARCH_JOB, Driver, Identity
from roost.fleet.nomad_api import NomadRefusedError
from roost.fleet.search.job import (
    SETTINGS,
    SIGNING,
    VARIABLE,
    SearchPrograms,
    SearchWish,
    ensure_search_variable,
    forget_search_variable,
    search_job,
)
from roost.fleet.search.settings import settings_document
from roost.fleet.site_jobs import stale_jobs
from roost.ops.errors import RoostError
from tests.unit.fleet.golden_jobs import REPOSITORY

WHO = Identity("roost-search", "roost", 8364, 8364)
WISH = SearchWish(port=8888, memory_mib=512, command=("/opt/searxng/python", "-m", "searx.webapp"), identity=WHO)


def text_of(driver: Driver, wish: SearchWish = WISH) -> str:
    job = search_job(wish, SearchPrograms(image="roost/search:1"), driver, datacenter="dc1", bind="127.0.0.1")
    return render_job(REPOSITORY / "nomad", job)


def test_it_listens_on_loopback_runs_as_its_own_user_and_has_its_secret_from_nomad() -> None:
    text = text_of("docker")
    for wanted in (
        'image           = "roost/search:1"',
        'user   = "8364:8364"',
        "readonly_rootfs = true",
        'cap_drop        = ["all"]',
        'host_network = "loopback"',
        'GRANIAN_HOST = "127.0.0.1"',
        'GRANIAN_PORT = "8888"',
        'SEARXNG_SETTINGS_PATH = "${NOMAD_SECRETS_DIR}/settings.yml"',
        'path     = "/healthz"',
        f'nomadVar \\"{VARIABLE}\\"',
    ):
        assert wanted in text, wanted
    plain = text_of("raw_exec")
    assert '"--reuid"' in plain
    assert '"searx.webapp"' in plain
    assert "roost/search" not in plain


def test_settings_give_json_to_this_machine_only_and_tell_nobody_anything() -> None:
    document = yaml.safe_load(settings_document([], bind="127.0.0.1", port=8888))
    assert document["use_default_settings"] is True
    assert document["search"]["formats"] == ["html", "json"]
    assert (document["server"]["bind_address"], document["server"]["port"]) == ("127.0.0.1", 8888)
    assert document["server"]["limiter"] is document["server"]["public_instance"] is False
    assert document["general"]["enable_metrics"] is False
    assert "secret_key" not in document["server"]
    assert "engines" not in document


def test_engines_are_names_or_whole_entries() -> None:
    own: dict[str, object] = {"name": "docs", "engine": "json_engine", "search_url": "http://docs/?q={query}"}
    document = yaml.safe_load(settings_document(["wikipedia", own], bind="::1", port=1))
    assert document["use_default_settings"] == {"engines": {"keep_only": ["wikipedia", "docs"]}}
    assert document["engines"][0] == {"name": "wikipedia", "disabled": False}
    assert document["engines"][1]["search_url"] == "http://docs/?q={query}"
    with pytest.raises(ValueError, match="no name"):
        SearchWish(port=1, memory_mib=512, engines=({"engine": "json_engine"},), identity=WHO)


def test_without_containers_somebody_has_to_say_what_starts_it() -> None:
    with pytest.raises(RoostError, match="without containers") as told:
        text_of("raw_exec", WISH.model_copy(update={"command": ()}))
    assert "roost search enable --command" in (told.value.fix or "")


def test_it_goes_when_nobody_wants_it_and_knows_no_secret_of_others() -> None:
    job = search_job(WISH, SearchPrograms(), "raw_exec", datacenter="dc1", bind="127.0.0.1")
    assert stale_jobs([SEARCH_JOB, AGENT_JOB, "else"], []) == [SEARCH_JOB]
    assert stale_jobs([SEARCH_JOB], [job]) == []
    assert job_secrets([job], engine_key="e", api_keys=["k"], tls=None) == {}


class Variables:
    """Nomad's variables, as far as they are used here."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, str]] = {}

    def get(self, path: str) -> dict[str, Any]:
        found = self.items.get(path.removeprefix("var/"))
        if found is None:
            raise NomadRefusedError(404, "not found", path)
        return {"Items": found}

    def put(self, path: str, body: dict[str, Any]) -> None:
        self.items[path.removeprefix("var/")] = body["Items"]

    def request(self, method: str, path: str) -> None:
        assert method == "DELETE"
        del self.items[path.removeprefix("var/")]


KEYED = WISH.model_copy(update={"engines": ({"name": "brave", "engine": "braveapi", "api_key": "an-engines-key"},)})


@pytest.mark.parametrize("driver", ["docker", "raw_exec"])
def test_what_an_engine_needs_to_be_asked_is_for_the_job_alone_and_no_part_of_its_text(driver: Driver) -> None:
    nomad: Any = Variables()
    assert ensure_search_variable(nomad, KEYED, bind="127.0.0.1")
    settings = yaml.safe_load(nomad.items[VARIABLE][SETTINGS])
    assert settings["engines"] == [
        {"disabled": False, "name": "brave", "engine": "braveapi", "api_key": "an-engines-key"}
    ]
    text = text_of(driver, KEYED)
    assert "an-engines-key" not in text
    assert "braveapi" not in text
    assert f"{{{{ .{SETTINGS} }}}}" in text


def test_other_settings_are_another_job() -> None:
    assert text_of("docker", KEYED) != text_of("docker")
    assert text_of("docker", KEYED) == text_of("docker", KEYED)


def test_the_secret_is_made_once_and_forgotten_with_the_job() -> None:
    nomad: Any = Variables()
    assert ensure_search_variable(nomad, WISH, bind="127.0.0.1", dry_run=True)
    assert nomad.items == {}
    assert ensure_search_variable(nomad, WISH, bind="127.0.0.1")
    first = nomad.items[VARIABLE][SIGNING]
    assert len(first) == 64
    assert not ensure_search_variable(nomad, WISH, bind="127.0.0.1")
    assert ensure_search_variable(nomad, KEYED, bind="127.0.0.1")
    assert nomad.items[VARIABLE][SIGNING] == first
    forget_search_variable(nomad)
    assert ensure_search_variable(nomad, WISH, bind="127.0.0.1")
    assert nomad.items[VARIABLE][SIGNING] != first
