"""A real Prometheus and promtool: rules that fire and do not, queries that are valid, a gateway that is scraped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from roost.fleet.monitoring.dashboards import dashboards
from roost.fleet.monitoring.prometheus import scrape_document
from roost.fleet.monitoring.rules import AGENT_METRICS_JOB, ENGINES_JOB, JOB, Thresholds, alerts, rules_text
from roost.ops import metric_names as names
from roost.ops.pki import RENEW_BEFORE_DAYS
from tests.support.engine import ENGINE_KEY, MODEL, llama_server
from tests.support.gateway import API_KEY, quick_settings, served
from tests.support.net import eventually
from tests.support.promtool import prometheus, promtool

DAY_S = 86400
HALF_AN_HOUR = 30  # one sample a minute
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Case:
    """Series under which an alert fires, some under which it does not, and the labels that it then has."""

    firing: Mapping[str, str]
    quiet: Mapping[str, str]
    labels: Mapping[str, str]


def steady(value: float) -> str:
    return f"{value}+0x{HALF_AN_HOUR}"


def growing(step: float) -> str:
    return f"0+{step}x{HALF_AN_HOUR}"


def histogram(name: str, labels: str, fast: float, slow: float) -> dict[str, str]:
    """Series in which `fast` observations a minute take up to 1 s, and `slow` between 10 and 30 s."""
    return {
        f'{name}{{{labels}, le="1.0"}}': growing(fast),
        f'{name}{{{labels}, le="10.0"}}': growing(fast),
        f'{name}{{{labels}, le="30.0"}}': growing(fast + slow),
        f'{name}{{{labels}, le="+Inf"}}': growing(fast + slow),
    }


def ended(errors: float, kind: str) -> dict[str, str]:
    who = 'model="m", endpoint="e"'
    return {
        f'{names.ERRORS.total}{{{who}, error="{kind}"}}': growing(errors),
        f'{names.REQUESTS.total}{{{who}, kind="chat", status="200"}}': growing(100 - errors),
        f'{names.REQUESTS.total}{{{who}, kind="chat", status="502"}}': growing(errors),
    }


def states(ready: int, cold: int, down: int, tier: str = "potato") -> dict[str, str]:
    numbers = {"ready": ready, "cold": cold, "loading": 0, "down": down}
    series = f'{names.ENDPOINTS.name}{{slot="main", tier="{tier}", state="%s"}}'
    return {series % state: steady(number) for state, number in numbers.items()}


UP = f'up{{job="{JOB}", instance="i"}}'
QUEUE = f'{names.QUEUE.name}{{queue="model"}}'
BUCKETS = (names.QUEUE_WAIT.bucket, names.FIRST_TOKEN.bucket)
ENGINE = f'{names.ENGINE_UP.name}{{model="m", slot="main", node="n", endpoint="e"}}'
WORKER = f'{names.JOB_UP.name}{{job="roost-rpc-main-0", task="worker", slot="main", node="n", model="m"}}'
CASES = {
    "RoostGatewayDown": Case({UP: steady(0)}, {UP: steady(1)}, {"job": JOB, "instance": "i"}),
    "RoostSlotDown": Case(states(0, 0, 1), states(0, 1, 0), {"slot": "main"}),
    "RoostTierDown": Case(states(0, 0, 2), states(1, 0, 2), {"tier": "potato"}),
    "RoostEndpointDown": Case(
        {f'{names.ENDPOINT_UP.name}{{slot="main", endpoint="e"}}': steady(0)},
        {f'{names.ENDPOINT_UP.name}{{slot="main", endpoint="e"}}': f"1+0x10 0+0x5 1+0x{HALF_AN_HOUR}"},
        {"slot": "main", "endpoint": "e"},
    ),
    # What clients do wrong is no alarm.
    "RoostRequestsFail": Case(ended(10, "engine_failed"), ended(90, "invalid"), {"model": "m"}),
    "RoostQueueLong": Case({QUEUE: steady(21)}, {QUEUE: steady(20)}, {}),
    "RoostQueueSlow": Case(
        histogram(BUCKETS[0], 'model="m"', 90, 10), histogram(BUCKETS[0], 'model="m"', 96, 4), {"model": "m"}
    ),
    "RoostFirstTokenSlow": Case(
        histogram(BUCKETS[1], 'model="m", endpoint="e"', 90, 10),
        histogram(BUCKETS[1], 'model="m", endpoint="e"', 96, 4),
        {"model": "m"},
    ),
    "RoostWorkerLost": Case(
        {WORKER: steady(0)},
        {WORKER: steady(1)},
        {"job": "roost-rpc-main-0", "task": "worker", "slot": "main", "node": "n", "model": "m"},
    ),
    "RoostEngineSilent": Case(
        {ENGINE: steady(0)}, {ENGINE: steady(1)}, {"model": "m", "slot": "main", "node": "n", "endpoint": "e"}
    ),
    "RoostServersReplaced": Case(
        {f'{names.RESTARTS.total}{{slot="main", result="replaced"}}': growing(1)},
        {f'{names.RESTARTS.total}{{slot="main", result="replaced"}}': f"0+0x10 1+0x{HALF_AN_HOUR}"},
        {"slot": "main"},
    ),
    "RoostUsageNotWritten": Case(
        {f'{names.USAGE_TROUBLE.total}{{where="spool"}}': growing(1)},
        {f'{names.USAGE_TROUBLE.total}{{where="spool"}}': steady(5)},
        {"where": "spool"},
    ),
    "RoostCertificateEnds": Case(
        {f'{names.CERTIFICATE_END.name}{{address="192.0.2.10:8443"}}': steady(RENEW_BEFORE_DAYS * DAY_S)},
        # At the end of the test's half hour there is still a second more.
        {f'{names.CERTIFICATE_END.name}{{address="192.0.2.10:8443"}}': steady(RENEW_BEFORE_DAYS * DAY_S + 1801)},
        {"address": "192.0.2.10:8443"},
    ),
    "RoostWrongKeys": Case({names.WRONG_KEYS.total: growing(30)}, {names.WRONG_KEYS.total: growing(2)}, {}),
}


def rule_test(rules: Path, name: str, series: Mapping[str, str], expected: Sequence[Mapping[str, Any]]) -> str:
    return yaml.safe_dump(
        {
            "rule_files": [str(rules)],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": one, "values": values} for one, values in series.items()],
                    "alert_rule_test": [
                        {"eval_time": f"{HALF_AN_HOUR}m", "alertname": name, "exp_alerts": list(expected)}
                    ],
                }
            ],
        },
        sort_keys=False,
    )


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(rules_text(Thresholds()))
    return path


def test_the_rules_are_valid_and_each_has_a_test(rules: Path) -> None:
    done = promtool("check", "rules", rules)
    assert done.returncode == 0, done.stdout + done.stderr
    assert CASES.keys() == {alert.name for alert in alerts(Thresholds())}


@pytest.mark.parametrize("name", CASES)
def test_each_alert_fires_when_it_should_and_not_else(tmp_path: Path, rules: Path, name: str) -> None:
    """The annotations are not compared, so promtool names them: what it expected must differ in nothing else."""
    case = CASES[name]
    alert = next(alert for alert in alerts(Thresholds()) if alert.name == name)
    quiet = tmp_path / "quiet.yaml"
    quiet.write_text(rule_test(rules, name, case.quiet, []))
    done = promtool("test", "rules", quiet)
    assert done.returncode == 0, f"it fires without a cause: {done.stdout}{done.stderr}"
    silent = tmp_path / "silent.yaml"  # a test that cannot fail would pass here too
    silent.write_text(rule_test(rules, name, case.firing, []))
    done = promtool("test", "rules", silent)
    assert done.returncode != 0, "it does not fire"
    said = done.stdout + done.stderr
    for label, value in {**case.labels, "severity": alert.severity}.items():
        assert f'{label}="{value}"' in said, said
    assert "{{" not in said
    assert "error expanding template" not in said


def test_every_query_of_a_dashboard_is_one_for_prometheus(tmp_path: Path) -> None:
    queries = [query.expression for dashboard in dashboards() for panel in dashboard.panels for query in panel.queries]
    recorded = [{"record": f"checked:{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
    recorded[0]["expr"] = "sum by ("
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    assert promtool("check", "rules", path).returncode != 0


async def ask_prometheus(client: aiohttp.ClientSession, url: str, query: str) -> list[dict[str, Any]]:
    async with client.get(f"{url}/api/v1/query", params={"query": query}) as answer:
        document = await answer.json()
    assert document["status"] == "success", document
    found: list[dict[str, Any]] = document["data"]["result"]
    return found


async def test_a_real_prometheus_scrapes_a_real_gateway_and_its_model_server(tmp_path: Path, rules: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(API_KEY)
    engine_key = tmp_path / "engine-key-file"
    engine_key.write_text(ENGINE_KEY)
    question = {"model": "main", "messages": [{"role": "user", "content": "Name a river."}], "max_tokens": 8}
    question |= {"stream": True, "stream_options": {"include_usage": True}}
    with llama_server(tmp_path, ["--metrics"]) as engine:
        settings = quick_settings(
            tmp_path,
            static_endpoints=engine.base_url,
            engine_key_file=engine_key,
            engine_metrics_s=0.5,
            wait_s=120,
            canary_timeout_s=120,
        )
        async with served(settings) as gateway:
            await eventually(lambda: gateway.states() == ["ready"], 120, "the model server to be ready")
            async with gateway.client.post(gateway.url + CHAT, json=question) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            for page in ("/metrics", "/metrics/engines"):
                async with gateway.client.get(gateway.url + page) as answer:
                    done = await asyncio.to_thread(promtool, "check", "metrics", stdin=await answer.text())
                faults = [line for line in done.stderr.splitlines() if not line.startswith("llamacpp:")]
                assert faults == [], f"{page}: {faults}"
            targets: dict[str, object] = {"static_configs": [{"targets": [gateway.url.removeprefix("http://")]}]}
            config = tmp_path / "prometheus.yaml"
            config.write_text(scrape_document(key_file=str(key_file), targets=targets, rules=str(rules), every_s=5))
            done = await asyncio.to_thread(promtool, "check", "config", config)
            assert done.returncode == 0, done.stdout + done.stderr
            with prometheus(tmp_path, config) as url:
                async with aiohttp.ClientSession() as client:

                    async def all_up() -> bool:
                        found = await ask_prometheus(client, url, "up == 1")
                        return {one["metric"]["job"] for one in found} == {JOB, ENGINES_JOB, AGENT_METRICS_JOB}

                    await eventually(all_up, 120, "all pages to be scraped")
                    endpoint = f"main@127.0.0.1:{engine.port}"
                    who = {"model": MODEL, "endpoint": endpoint}
                    for query, labels in (
                        (f'{names.REQUESTS.total}{{status="200"}}', {**who, "kind": "chat"}),
                        (f"{names.FIRST_TOKEN.name}_count", who),
                        (f"{names.INTER_TOKEN.name}_count", who),
                        (f'{names.TOKENS.total}{{direction="in"}}', who),
                        (f"{names.ENDPOINT_UP.name} == 1", {"slot": "main", "endpoint": endpoint}),
                        (f"{names.LLAMA_PROMPT.total} > 0", {**who, "slot": "main"}),
                        (f"{names.LLAMA_BUSY.name} >= 0", {**who, "slot": "main"}),
                        (f"{names.ENGINE_UP.name} == 1", {**who, "slot": "main"}),
                    ):
                        (found,) = await ask_prometheus(client, url, query)
                        assert labels.items() <= found["metric"].items(), query
                        assert float(found["value"][1]) >= 0
                    everything = await ask_prometheus(client, url, '{__name__=~".+"}')
                    assert API_KEY not in json.dumps(everything)
                    assert ENGINE_KEY not in json.dumps(everything)
                    async with client.get(f"{url}/api/v1/rules") as answer:
                        (group,) = (await answer.json())["data"]["groups"]
                    assert len(group["rules"]) == len(CASES)
                    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
                    async with client.get(f"{url}/api/v1/targets") as answer:
                        active = (await answer.json())["data"]["activeTargets"]
                    assert [target["lastError"] for target in active] == ["", "", ""]
