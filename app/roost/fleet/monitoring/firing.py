"""Which alerts fire now, as Prometheus says (https://prometheus.io/docs/prometheus/latest/querying/api/#alerts)."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

TIMEOUT_S = 3.0
FIRING = "firing"


class _Alert(BaseModel):
    state: str
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class _Data(BaseModel):
    alerts: list[_Alert] = Field(default_factory=list)


class _Answer(BaseModel):
    data: _Data


def firing(address: str) -> tuple[str, ...] | None:
    """Return a line for each alert that fires; None where nobody answers at `address`, or not as Prometheus does."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/api/v1/alerts")
        found = _Answer.model_validate_json(connection.getresponse().read()).data.alerts
    except (OSError, http.client.HTTPException, ValidationError):
        return None
    finally:
        connection.close()
    lines = {
        f"{alert.labels.get('alertname', '')}: {alert.annotations.get('summary', '')}"
        + (f". {alert.annotations['fix']}" if alert.annotations.get("fix") else "")
        for alert in found
        if alert.state == FIRING
    }
    return tuple(sorted(lines))
