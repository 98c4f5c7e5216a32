"""Alert rules, made of the names in `ops/metric_names.py`: one list for the file, its tests and the documents."""

from __future__ import annotations

from dataclasses import dataclass

import yaml
from pydantic import BaseModel, ConfigDict, Field

from roost.ops import metric_names as names
from roost.ops.pki import RENEW_BEFORE_DAYS

GROUP = "roost"
DAY_S = 86400
JOB = "roost"  # of the scrape configuration: gateways
ENGINES_JOB = "roost-engines"
AGENT_METRICS_JOB = "roost-agents"


class Thresholds(BaseModel):
    """When alerts fire; the variable `monitoring_thresholds`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue_length: int = Field(default=20, ge=1)  # requests that wait for a model
    queue_wait_s: float = Field(default=10.0, gt=0)  # of 95 in 100 requests of a model
    first_token_s: float = Field(default=10.0, gt=0)  # likewise
    error_ratio: float = Field(default=0.05, gt=0, lt=1)  # of the requests of a model
    wrong_keys_per_minute: float = Field(default=10.0, gt=0)


@dataclass(frozen=True)
class Alert:
    """One rule. `minutes`: how long it must hold; `summary` and `fix` may use Prometheus' templates."""

    name: str
    expression: str
    minutes: int
    severity: str
    summary: str
    fix: str


def ratio_of_errors(by: str = "model") -> str:
    """Return the share of requests that failed for a reason that is ours; a client's own mistakes do not count."""
    ours = f'{names.ERRORS.total}{{error=~"engine_failed|interrupted|unavailable|internal"}}'
    return f"sum by ({by}) (rate({ours}[5m])) / sum by ({by}) (rate({names.REQUESTS.total}[5m]))"


def quantile(spec: names.Spec, share: float, by: str = "model", window: str = "5m") -> str:
    """Return a quantile of a histogram, never summed over models: each has its own speed."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({spec.bucket}[{window}])))"


def alerts(limits: Thresholds) -> list[Alert]:
    """Return every rule."""
    endpoints = names.ENDPOINTS.name
    usable = f'{endpoints}{{state=~"ready|cold"}}'  # a cold model is started when somebody asks for it
    of_tier = f'{endpoints}{{state=~"ready|cold", tier!=""}}'
    return [
        Alert(
            "RoostGatewayDown",
            f'up{{job="{JOB}"}} == 0 or absent(up{{job="{JOB}"}})',
            2,
            "critical",
            "A gateway does not answer: {{ $labels.instance }}",
            "`roost jobs` and `roost logs agent` on its node",
        ),
        Alert(
            "RoostSlotDown",
            f"sum by (slot) ({usable}) == 0",
            3,
            "critical",
            "No model server of the slot {{ $labels.slot }} can answer",
            "`roost doctor`; `roost logs {{ $labels.slot }}`",
        ),
        Alert(
            "RoostTierDown",
            f"sum by (tier) ({of_tier}) == 0",
            3,
            "critical",
            "No model of the tier {{ $labels.tier }} can answer",
            "`roost doctor` on the nodes of that tier; other tiers answer where model_fallbacks allows it",
        ),
        Alert(
            "RoostEndpointDown",
            f"{names.ENDPOINT_UP.name} == 0",
            10,
            "warning",
            "The model server {{ $labels.endpoint }} is not ready",
            "`roost logs {{ $labels.slot }}`",
        ),
        Alert(
            "RoostRequestsFail",
            f"{ratio_of_errors()} > {limits.error_ratio}",
            5,
            "critical",
            "{{ $value | humanizePercentage }} of the requests to {{ $labels.model }} fail",
            "`roost logs agent`: lines with status 502 and 503 say why",
        ),
        Alert(
            "RoostQueueLong",
            f'sum({names.QUEUE.name}{{queue="model"}}) > {limits.queue_length}',
            5,
            "warning",
            "{{ $value }} requests wait for a model",
            "more slots (`parallel`) or another replica; `roost plan` says what fits",
        ),
        Alert(
            "RoostQueueSlow",
            f"{quantile(names.QUEUE_WAIT, 0.95)} > {limits.queue_wait_s}",
            10,
            "warning",
            "Requests to {{ $labels.model }} wait {{ $value | humanizeDuration }} for a model server",
            "as for RoostQueueLong",
        ),
        Alert(
            "RoostFirstTokenSlow",
            f"{quantile(names.FIRST_TOKEN, 0.95)} > {limits.first_token_s}",
            10,
            "warning",
            "The first token of {{ $labels.model }} takes {{ $value | humanizeDuration }}",
            "long prompts, a full queue or too few slots; the dashboard Roost: models shows which",
        ),
        Alert(
            "RoostWorkerLost",
            f"{names.JOB_UP.name} == 0",
            5,
            "critical",
            "The job {{ $labels.job }} does not run {{ $labels.node }}",
            "`roost jobs`; a node that is away takes its workers with it",
        ),
        Alert(
            "RoostEngineSilent",
            f"{names.ENGINE_UP.name} == 0",
            15,
            "warning",
            "The model server {{ $labels.endpoint }} gives no metrics although it is ready",
            "its format may have changed with a new engine: `roost images list`",
        ),
        Alert(
            "RoostServersReplaced",
            f"sum by (slot) (increase({names.RESTARTS.total}[1h])) > 2",
            0,
            "warning",
            "Stuck model servers of {{ $labels.slot }} were replaced {{ $value }} times within an hour",
            "`roost logs {{ $labels.slot }}`, `roost doctor`",
        ),
        Alert(
            "RoostUsageNotWritten",
            f"increase({names.USAGE_TROUBLE.total}[10m]) > 0",
            0,
            "critical",
            "Usage cannot be written down ({{ $labels.where }})",
            "is the disk full? `df -h`; `roost logs agent`",
        ),
        Alert(
            "RoostCertificateEnds",
            f"({names.CERTIFICATE_END.name} - time()) / {DAY_S} <= {RENEW_BEFORE_DAYS}",
            10,
            "warning",
            "The certificate at {{ $labels.address }} ends in {{ $value | humanize }} days",
            "`./bootstrap.sh`, in a fleet on its first machine, makes a new one; yours (--listen-cert) you renew",
        ),
        Alert(
            "RoostWrongKeys",
            f"sum(rate({names.WRONG_KEYS.total}[5m])) * 60 > {limits.wrong_keys_per_minute}",
            10,
            "warning",
            "{{ $value | humanize }} requests a minute have no good key",
            "a program with an old key, or somebody guesses: `roost logs agent`",
        ),
    ]


def rules_document(limits: Thresholds) -> dict[str, object]:
    """Return the rules as Prometheus wants them."""
    rules = []
    for alert in alerts(limits):
        rule: dict[str, object] = {"alert": alert.name, "expr": alert.expression}
        if alert.minutes:
            rule["for"] = f"{alert.minutes}m"
        rule["labels"] = {"severity": alert.severity}
        rule["annotations"] = {"summary": alert.summary, "fix": alert.fix}
        rules.append(rule)
    return {"groups": [{"name": GROUP, "rules": rules}]}


def rules_text(limits: Thresholds) -> str:
    """Return the rules file."""
    return yaml.safe_dump(rules_document(limits), sort_keys=False, width=200)
