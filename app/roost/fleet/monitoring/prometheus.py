"""Prometheus' configuration: which gateways it scrapes, with which key, and what Grafana needs to show it."""

from __future__ import annotations

import yaml

from roost.fleet.monitoring.rules import AGENT_METRICS_JOB, ENGINES_JOB, JOB
from roost.ops.metric_names import AGENT_PAGE

ENGINES_EVERY = 2  # scrapes of gateways for one of their model servers
TIMEOUT_S = 10


def scrape_document(*, key_file: str, targets: dict[str, object], rules: str, every_s: int, ca_file: str = "") -> str:
    """Return the configuration. `targets` is one entry of a scrape configuration: static or files that say them."""

    def job(name: str, path: str, seconds: int) -> dict[str, object]:
        found: dict[str, object] = {
            "job_name": name,
            "metrics_path": path,
            "scrape_interval": f"{seconds}s",
            "scrape_timeout": f"{min(seconds, TIMEOUT_S)}s",
            "authorization": {"type": "Bearer", "credentials_file": key_file},
            # The fleet's own labels hold: what a server says of itself must not take their place.
            "honor_labels": False,
            "sample_limit": 50_000,
            **targets,
        }
        if ca_file:
            found |= {"scheme": "https", "tls_config": {"ca_file": ca_file}}
        return found

    document = {
        "global": {"scrape_interval": f"{every_s}s", "evaluation_interval": f"{every_s}s"},
        "rule_files": [rules],
        "scrape_configs": [
            job(JOB, "/metrics", every_s),
            job(ENGINES_JOB, "/metrics/engines", every_s * ENGINES_EVERY),
            job(AGENT_METRICS_JOB, AGENT_PAGE, every_s * ENGINES_EVERY),
        ],
    }
    return yaml.safe_dump(document, sort_keys=False, width=200)


def grafana_source(url: str) -> str:
    """Return Grafana's provisioning file of the data source."""
    source = {
        "name": "Roost", "uid": "roost", "type": "prometheus", "access": "proxy", "url": url, "isDefault": False,
    }  # fmt: skip
    return yaml.safe_dump({"apiVersion": 1, "datasources": [source]}, sort_keys=False)


def grafana_provider(folder: str) -> str:
    """Return Grafana's provisioning file that makes it read dashboards from a folder."""
    provider = {
        "name": "roost", "folder": "Roost", "type": "file", "disableDeletion": True, "options": {"path": folder},
    }  # fmt: skip
    return yaml.safe_dump({"apiVersion": 1, "providers": [provider]}, sort_keys=False)
