"""What jobs may read that nobody else may: the items of their Nomad variables."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from roost.fleet.agent_jobs import GATEWAY_JOB, AgentJob
from roost.fleet.job_text import Job
from roost.fleet.jobs import MonitoringJob, RpcWorkerJob, SearchJob


def job_secrets(
    jobs: Sequence[Job],
    *,
    engine_key: str,
    api_keys: Sequence[str],
    tls: tuple[str, str] | None,
    authority: str = "",
    engine_ca: str = "",
) -> dict[str, dict[str, str]]:
    """Return what each job may read as its own Nomad variable: path -> items. API keys go as hashes only.

    `authority` is the certificate by which several gateways know each other. The key for that follows from the first
    API key, which no job can read. `engine_ca` is that by which they know model servers that answer with TLS.
    """
    several = any(job.name == GATEWAY_JOB for job in jobs)
    hashed = "".join(f"{hashlib.sha256(key.encode()).hexdigest()}\n" for key in api_keys)
    secrets: dict[str, dict[str, str]] = {}
    for job in jobs:
        # know no key; one gets its own from `ensure_watch_key`, one its secrets from `ensure_search_variable`
        if isinstance(job, RpcWorkerJob | MonitoringJob | SearchJob):
            continue
        items = {"engine_key": engine_key}
        if isinstance(job, AgentJob):
            items["api_key_sha256"] = hashed
            if tls is not None and not job.tls_volume:
                items |= {"tls_cert": tls[0], "tls_key": tls[1]}
            if several:
                items |= {"peer_key": peer_key(api_keys[0]), "peer_ca": authority}
            if engine_ca:
                items["engine_ca"] = engine_ca
        secrets[f"nomad/jobs/{job.name}"] = items
    return secrets


def peer_key(api_key: str) -> str:
    """Return the key by which several gateways of a site know each other."""
    return hmac.new(api_key.encode(), b"roost gateways", hashlib.sha256).hexdigest()
