"""Prometheus as a job: what is decided, what Nomad gets, and the key that it looks with."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from roost.fleet.agent_jobs import KEYS_ITEM, KEYS_VARIABLE
from roost.fleet.agent_variables import AGENT_JOB
from roost.fleet.job_secrets import job_secrets
from roost.fleet.job_text import render_job
from roost.fleet.jobs import MONITORING_JOB, Driver, Identity
from roost.fleet.monitoring.job import (
    MonitoringPrograms,
    MonitoringWish,
    ensure_watch_key,
    forget_watch_key,
    monitoring_job,
)
from roost.fleet.nomad_api import NomadRefusedError
from roost.fleet.site_jobs import stale_jobs
from roost.ops.api_keys import ApiKey, Role, digest_of, parse_document, without_key
from tests.unit.fleet.golden_jobs import REPOSITORY

WHO = Identity("roost-monitoring", "roost", 8363, 8363)
WISH = MonitoringWish(
    port=9090, memory_mib=256, scrape_s=15, keep_days=15, keep_mib=1024, state_dir="/var/lib/x", identity=WHO
)
TREE = MonitoringPrograms(command=("/tree/ld.so", "--library-path", "/tree/lib", "/tree/usr/bin/prometheus"))


def text_of(driver: Driver, programs: MonitoringPrograms) -> str:
    job = monitoring_job(WISH, programs, driver, datacenter="dc1", bind="127.0.0.1")
    return render_job(REPOSITORY / "nomad", job)


def test_it_listens_on_loopback_keeps_so_much_and_runs_as_its_own_user() -> None:
    text = text_of("docker", MonitoringPrograms(image="roost/monitoring:1"))
    for wanted in (
        '"--web.listen-address=127.0.0.1:9090"',
        '"--storage.tsdb.retention.time=15d"',
        '"--storage.tsdb.retention.size=1024MB"',
        '"--storage.tsdb.path=/state"',
        'user   = "8363:8363"',
        "readonly_rootfs = true",
        'host_network = "loopback"',
        'source = "roost-monitoring"',
        f'nomadService \\"{AGENT_JOB}\\"',
        f'nomadVar \\"nomad/jobs/{MONITORING_JOB}\\"',
    ):
        assert wanted in text, wanted
    plain = text_of("raw_exec", TREE)
    assert '"--storage.tsdb.path=/var/lib/x"' in plain
    assert '"--reuid"' in plain
    assert '"/tree/usr/bin/prometheus"' in plain
    assert "volume" not in plain.replace("storage", "")


def test_templates_of_the_rules_are_left_to_prometheus() -> None:
    text = text_of("docker", MonitoringPrograms(image="i"))
    rules = re.search(r'rules\.yaml"\n\s+data\s+= (".*")\n\s+left_delimiter', text)
    assert rules
    document = yaml.safe_load(yaml.safe_load(rules[1]))
    summaries = [rule["annotations"]["summary"] for rule in document["groups"][0]["rules"]]
    assert any("{{ $labels.slot }}" in summary for summary in summaries)
    assert "<<<" not in rules[1]


def test_wishes_that_make_no_sense_are_refused() -> None:
    for wrong in ({"port": 0}, {"scrape_s": 1}, {"keep_days": 0}, {"thresholds": {"no-such": 1}}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MonitoringWish.model_validate({**WISH.model_dump(), **wrong})


def test_it_goes_when_nobody_wants_it_and_knows_no_secret_of_others() -> None:
    job = monitoring_job(WISH, TREE, "raw_exec", datacenter="dc1", bind="127.0.0.1")
    assert stale_jobs([MONITORING_JOB, AGENT_JOB, "else"], []) == [MONITORING_JOB]
    assert stale_jobs([MONITORING_JOB], [job]) == []
    assert job_secrets([job], engine_key="e", api_keys=["k"], tls=None) == {}


class Variables:
    """Nomad's variables, as far as they are used here."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, str]] = {}
        self.index = 1

    def get(self, path: str) -> dict[str, Any]:
        found = self.items.get(path.removeprefix("var/"))
        if found is None:
            raise NomadRefusedError(404, "not found", path)
        return {"Items": found, "ModifyIndex": self.index}

    def put(self, path: str, body: dict[str, Any], cas: str | None = None) -> None:
        _ = cas
        self.index += 1
        self.items[path.removeprefix("var/")] = body["Items"]


def test_the_key_is_read_only_made_once_and_made_anew_when_one_half_is_lost() -> None:
    nomad: Any = Variables()
    assert ensure_watch_key(nomad, dry_run=True)
    assert nomad.items == {}
    assert ensure_watch_key(nomad)
    first = nomad.items[f"nomad/jobs/{MONITORING_JOB}"]["api_key"]
    assert not ensure_watch_key(nomad)

    def known() -> tuple[ApiKey, ...]:
        return parse_document(nomad.items[KEYS_VARIABLE][KEYS_ITEM]).keys

    (key,) = known()
    assert (key.name, key.role, key.sha256) == ("monitoring", Role.READ_ONLY, digest_of(first))
    del nomad.items[f"nomad/jobs/{MONITORING_JOB}"]
    assert ensure_watch_key(nomad)
    second = nomad.items[f"nomad/jobs/{MONITORING_JOB}"]["api_key"]
    assert [key.sha256 for key in known()] == [digest_of(second)]
    assert first != second
    document = parse_document(nomad.items[KEYS_VARIABLE][KEYS_ITEM])
    revoked = without_key(document, "monitoring", datetime.now(UTC), purge=False)
    nomad.items[KEYS_VARIABLE] = {KEYS_ITEM: revoked.text()}
    assert not ensure_watch_key(nomad)  # whoever revoked it meant it
    forget_watch_key(nomad)
    assert known() == ()
