"""Rules and dashboards name only metrics that exist. What Prometheus says of them: tests/integration."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from roost.fleet.monitoring.dashboards import Dashboard, dashboard_text, dashboards
from roost.fleet.monitoring.prometheus import grafana_provider, grafana_source, scrape_document
from roost.fleet.monitoring.rules import Thresholds, alerts, rules_document, rules_text
from roost.ops import metric_names as names

WORDS = re.compile(r"\b(?:roost_|llamacpp:)\w+")
SERIES = re.compile(r"(\b(?:roost_|llamacpp:)\w+)(\{[^}]*\})?")
KNOWN = {sample: spec for spec in (*names.ALL, *names.AGENT) for sample in spec.samples}
GROUPED = re.compile(r"by \(([^)]*)\)")


def expressions() -> list[tuple[str, str]]:
    found = [(alert.name, alert.expression) for alert in alerts(Thresholds())]
    for dashboard in dashboards():
        for panel in dashboard.panels:
            found += [(f"{dashboard.title}: {panel.title}", query.expression) for query in panel.queries]
    return found


@pytest.mark.parametrize(("where", "expression"), expressions(), ids=lambda value: str(value)[:50])
def test_every_metric_and_label_exists(where: str, expression: str) -> None:
    named = WORDS.findall(expression)
    assert named or "up{" in expression, where
    for name, selector in SERIES.findall(expression):
        assert name in KNOWN, f"{where}: {name}"
        for label in re.findall(r"(\w+)(?:=~|!=|=)", selector):
            assert label in KNOWN[name].labels, f"{where}: {label}"
    labels = {label for name in named for label in (*KNOWN[name].labels, "le")}
    for group in GROUPED.findall(expression):
        assert {label.strip() for label in group.split(",")} <= labels, f"{where}: by ({group})"


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: str(dashboard.uid))
def test_legends_name_labels_that_the_expression_keeps(dashboard: Dashboard) -> None:
    for panel in dashboard.panels:
        for query in panel.queries:
            kept = {label for group in GROUPED.findall(query.expression) for label in re.split(r",\s*", group)}
            if not kept and "sum(" not in query.expression:
                kept = {label for name in WORDS.findall(query.expression) for label in KNOWN[name].labels}
            assert set(re.findall(r"{{(\w+)}}", query.legend)) <= kept, f"{panel.title}: {query.legend}"


def test_dashboards_are_whole_and_have_names_of_their_own() -> None:
    documents = [json.loads(dashboard_text(dashboard)) for dashboard in dashboards()]
    assert len({document["uid"] for document in documents}) == len(documents) == 4
    for document in documents:
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in document["panels"]]
        assert len(set(places)) == len(places)
        assert all(x + panel["gridPos"]["w"] <= 24 for panel, (x, _) in zip(document["panels"], places, strict=True))
        assert all(panel["datasource"]["uid"] == "${source}" for panel in document["panels"])
        assert document["templating"]["list"][0]["name"] == "source"
    shown = "".join(dashboard_text(dashboard) for dashboard in dashboards()) + rules_text(Thresholds())
    unseen = [spec.name for spec in (*names.OWN, *names.AGENT) if not any(sample in shown for sample in spec.samples)]
    assert set(unseen) == {names.SLOT_TOKENS.name, names.BUILD.name, names.ROUTE_TIME.name}


def test_thresholds_reach_the_rules_and_what_is_no_threshold_is_refused() -> None:
    text = json.dumps(rules_document(Thresholds(queue_length=7, first_token_s=3.5, error_ratio=0.25)))
    assert "> 7" in text
    assert "> 3.5" in text
    assert "> 0.25" in text
    with pytest.raises(ValueError, match="extra"):
        Thresholds.model_validate({"queue": 1})
    for alert in alerts(Thresholds()):
        assert alert.severity in ("warning", "critical")
        assert alert.summary
        assert alert.fix
    assert len({alert.name for alert in alerts(Thresholds())}) == len(alerts(Thresholds()))


def test_the_scrape_configuration_uses_the_key_and_all_pages() -> None:
    targets: dict[str, object] = {"static_configs": [{"targets": ["127.0.0.1:8360"]}]}
    text = scrape_document(key_file="/k", targets=targets, rules="r.yaml", every_s=15)
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    assert [(job["metrics_path"], job["scrape_interval"]) for job in jobs.values()] == [
        ("/metrics", "15s"),
        ("/metrics/engines", "30s"),
        ("/metrics/agent", "30s"),
    ]
    assert all(job["authorization"]["credentials_file"] == "/k" for job in jobs.values())
    secure = scrape_document(key_file="/k", targets=targets, rules="r", every_s=5, ca_file="/ca.pem")
    assert all(job["scheme"] == "https" for job in yaml.safe_load(secure)["scrape_configs"])


def test_grafana_gets_its_source_and_its_folder() -> None:
    assert yaml.safe_load(grafana_source("http://127.0.0.1:9090"))["datasources"][0]["url"] == "http://127.0.0.1:9090"
    assert yaml.safe_load(grafana_provider("/d"))["providers"][0]["options"] == {"path": "/d"}
