"""Grafana dashboards, made of the names in `ops/metric_names.py`: panels as data here, JSON for Grafana from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from roost.fleet.monitoring.rules import quantile, ratio_of_errors
from roost.ops import metric_names as names

SOURCE = {"type": "prometheus", "uid": "${source}"}
SCHEMA = 39  # of the dashboard's JSON, Grafana 10 and later
WIDTH, HEIGHT, COLUMNS = 12, 8, 24
BY_MODEL, BY_ENDPOINT = "{{model}}", "{{slot}} {{endpoint}}"


@dataclass(frozen=True)
class Query:
    """One expression of a panel, and what its lines are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel; `unit` in Grafana's words (s, reqps, percentunit, bytes, short)."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"


@dataclass(frozen=True)
class Dashboard:
    """One dashboard."""

    uid: str
    title: str
    panels: Sequence[Panel]
    tags: Sequence[str] = field(default=("roost",))


def _rate(spec: names.Spec, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({spec.total}{where}[5m]))"


def dashboards() -> list[Dashboard]:
    """Return every dashboard."""
    return [_fleet(), _models(), _engines(), _agents()]


def _fleet() -> Dashboard:
    endpoints = names.ENDPOINTS.name
    return Dashboard(
        "roost-fleet",
        "Roost: fleet",
        [
            Panel("Requests", [Query(_rate(names.REQUESTS, "model"), BY_MODEL)], "reqps"),
            Panel("Failing requests", [Query(ratio_of_errors(), BY_MODEL)], "percentunit"),
            Panel("What is the matter", [Query(_rate(names.ERRORS, "error"), "{{error}}")], "reqps"),
            Panel("Waiting now", [Query(f"sum by (queue) ({names.QUEUE.name})", "for a {{queue}}")]),
            Panel("At work now", [Query(f"sum({names.IN_FLIGHT.name})", "requests")]),
            Panel("Model servers by state", [Query(f"sum by (slot, state) ({endpoints}) > 0", "{{slot}} {{state}}")]),
            Panel(
                "Other endpoint, other model",
                [
                    Query(_rate(names.FAILOVERS, "reason"), "failover: {{reason}}"),
                    Query(_rate(names.FALLBACKS, "slot, reason"), "{{slot}} for a {{reason}} model"),
                ],
                "reqps",
            ),
            Panel(
                "Retries and broken streams",
                [
                    Query(_rate(names.RETRIES, "result"), "retry {{result}}"),
                    Query(_rate(names.BROKEN, "result"), "stream {{result}}"),
                    Query(_rate(names.NOT_SEATED, "reason"), "no slot: {{reason}}"),
                ],
                "reqps",
            ),
            Panel(
                "Breakers opened", [Query(f"sum by (endpoint) (increase({names.OPENED.total}[5m]))", "{{endpoint}}")]
            ),
            Panel("Why an endpoint was chosen", [Query(_rate(names.CHOICES, "why"), "{{why}}")], "reqps"),
            Panel(
                "Choices for auto",
                [
                    Query(_rate(names.ROUTED, "model, reason"), "{{model}}: {{reason}}"),
                    Query(_rate(names.CASCADES, "model, reason"), "not good enough, {{model}}: {{reason}}"),
                ],
                "reqps",
            ),
            Panel(
                "Refused",
                [
                    Query(_rate(names.REFUSED, "key, reason"), "{{key}}: {{reason}}"),
                    Query(_rate(names.INVALID, "key, status"), "{{key}}: {{status}}"),
                    Query(f"sum(rate({names.WRONG_KEYS.total}[5m]))", "no good key"),
                ],
                "reqps",
            ),
            Panel(
                "Started, stopped, replaced",
                [
                    Query(f"sum by (slot) (increase({names.STARTS.total}[5m]))", "{{slot}} started"),
                    Query(f"sum by (slot, reason) (increase({names.STOPS.total}[5m]))", "{{slot}} stopped: {{reason}}"),
                    Query(f"sum by (slot, result) (increase({names.RESTARTS.total}[5m]))", "{{slot}} {{result}}"),
                ],
            ),
        ],
    )


def _models() -> Dashboard:
    cached = _rate(names.TOKENS, "model", '{direction="cached"}')
    prompt = _rate(names.TOKENS, "model", '{direction="in"}')
    return Dashboard(
        "roost-models",
        "Roost: models",
        [
            Panel("Time to first token, 95 of 100", [Query(quantile(names.FIRST_TOKEN, 0.95), BY_MODEL)], "s"),
            Panel("Time to first token, median", [Query(quantile(names.FIRST_TOKEN, 0.5), BY_MODEL)], "s"),
            Panel("Between tokens, 95 of 100", [Query(quantile(names.INTER_TOKEN, 0.95), BY_MODEL)], "s"),
            Panel("End to end, 95 of 100", [Query(quantile(names.DURATION, 0.95), BY_MODEL)], "s"),
            Panel("Wait for a model server, 95 of 100", [Query(quantile(names.QUEUE_WAIT, 0.95), BY_MODEL)], "s"),
            Panel("Prompt tokens a second", [Query(prompt, BY_MODEL)]),
            Panel("Answer tokens a second", [Query(_rate(names.TOKENS, "model", '{direction="out"}'), BY_MODEL)]),
            Panel("Of the prompt from the cache", [Query(f"{cached} / {prompt}", BY_MODEL)], "percentunit"),
            Panel(
                "Prompt tokens from the cache: had, and expected",
                [
                    Query(f"sum({cached})", "had"),
                    Query(f"sum(rate({names.EXPECTED.total}[5m]))", "expected of the endpoint"),
                ],
            ),
        ],
    )


def _engines() -> Dashboard:
    job, tokens = "{{job}} {{node}}", names.LLAMA_PREDICTED.total
    return Dashboard(
        "roost-engines",
        "Roost: model servers and workers",
        [
            Panel("Requests at each", [Query(names.ENDPOINT_BUSY.name, BY_ENDPOINT)]),
            Panel(
                "Places taken", [Query(f"{names.ENDPOINT_BUSY.name} / {names.ENDPOINT_SLOTS.name}", BY_ENDPOINT)],
                "percentunit",
            ),
            Panel("Not ready", [Query(f"{names.ENDPOINT_UP.name} == 0", BY_ENDPOINT)]),
            Panel("At work, as llama.cpp says", [Query(names.LLAMA_BUSY.name, BY_ENDPOINT)]),
            Panel("Waiting in llama.cpp", [Query(names.LLAMA_DEFERRED.name, BY_ENDPOINT)]),
            Panel(
                "Tokens computed a second",
                [
                    Query(f"rate({names.LLAMA_PROMPT.total}[5m])", "prompt {{endpoint}}"),
                    Query(f"rate({tokens}[5m])", "answer {{endpoint}}"),
                ],
            ),
            Panel(
                "Tokens in each step",
                [Query(f"rate({tokens}[5m]) / rate({names.LLAMA_DECODES.total}[5m])", BY_ENDPOINT)],
            ),
            Panel("Memory", [Query(names.JOB_MEMORY.name, job)], "bytes"),
            Panel("Processors kept busy", [Query(names.JOB_CPU.name, job)]),
            Panel("Restarts", [Query(names.JOB_RESTARTS.name, job)]),
            Panel("Time to answer a scrape", [Query(names.ENGINE_SECONDS.name, BY_ENDPOINT)], "s"),
        ],
    )  # fmt: skip


def _agents() -> Dashboard:
    who = "{{role}} {{model}}"
    return Dashboard(
        "roost-agents",
        "Roost: agents",
        [
            Panel("Turns by how they ended", [Query(_rate(names.AGENT_TURNS, "ended"), "{{ended}}")], "reqps"),
            Panel(
                "Time of a turn",
                [
                    Query(quantile(names.AGENT_TURN_SECONDS, 0.5, "mode"), "{{mode}}, half"),
                    Query(quantile(names.AGENT_TURN_SECONDS, 0.95, "mode"), "{{mode}}, 95 in 100"),
                ],
                "s",
            ),
            Panel("Router's preflights", [Query(_rate(names.AGENT_PREFLIGHTS, "result, by"), "{{result}} by {{by}}")]),
            Panel("Tool calls", [Query(_rate(names.AGENT_CALLS, "result"), "{{result}}")]),
            Panel("What the user was asked", [Query(_rate(names.AGENT_QUESTIONS, "result"), "{{result}}")]),
            Panel("Tokens a second", [Query(_rate(names.AGENT_TOKENS, "role, direction"), "{{role}} {{direction}}")]),
            Panel("Time that roles take", [Query(_rate(names.AGENT_ROLE_SECONDS, "role, model"), who)], "s"),
            Panel("Compactions and changed modes", [Query(_rate(names.AGENT_CONTEXT, "what"), "{{what}}")]),
        ],
    )


def document_of(dashboard: Dashboard) -> dict[str, object]:
    """Return a dashboard as Grafana's JSON. Its data source is a variable, so that it can be imported anywhere."""
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": list(dashboard.tags),
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [source]},
        "panels": [_panel(panel, number) for number, panel in enumerate(dashboard.panels)],
    }


def _panel(panel: Panel, number: int) -> dict[str, object]:
    row, column = divmod(number, COLUMNS // WIDTH)
    return {
        "id": number + 1,
        "title": panel.title,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": query.expression, "legendFormat": query.legend, "datasource": SOURCE}
            for at, query in enumerate(panel.queries)
        ],
    }


def dashboard_text(dashboard: Dashboard) -> str:
    """Return the file of a dashboard."""
    return json.dumps(document_of(dashboard), indent=2, ensure_ascii=False) + "\n"
