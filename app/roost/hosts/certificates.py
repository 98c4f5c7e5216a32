"""Certificates of a machine that are near their end: pure, from when they end to findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from roost.hosts.findings import Finding
from roost.ops.pki import RENEW_BEFORE_DAYS

DAY_S = 86400.0
RENEWS = "Run ./bootstrap.sh, in a fleet on its first machine: from now on any run makes a new one."
MADE_ANEW = "Run ./bootstrap.sh again."
WITH_AUTHORITY = (
    "No run makes a longer one: the fleet's authority is not renewed. What is left is told in docs/operations.md, "
    "Keys and certificates."
)


@dataclass(frozen=True)
class Certificate:
    """A certificate and when it ends, in seconds since 1970; `problem` if it cannot be read.

    `last`: no run makes a longer one. That is so of the authority's own, and of those that end with it.
    """

    path: str
    ends: float = 0.0
    problem: str = ""
    last: bool = False


def certificate_findings(seen: Sequence[Certificate], now: float) -> Iterator[Finding]:
    """Yield those that cannot be used, have ended, or end so soon that a run renews them; `now`: s since 1970."""
    for certificate in seen:
        name = f"certificate:{certificate.path}"
        if certificate.problem:
            yield Finding(
                name, "error", f"The certificate {certificate.path} cannot be used: {certificate.problem}.",
                "Nomad and its clients know each other by it.", MADE_ANEW,
            )  # fmt: skip
            continue
        left_s = certificate.ends - now
        if left_s <= RENEW_BEFORE_DAYS * DAY_S:
            when = datetime.fromtimestamp(certificate.ends, UTC).date().isoformat()
            yield Finding(
                name, "error" if left_s <= 0 else "warning",
                f"The certificate {certificate.path} {'ended' if left_s <= 0 else 'ends'} on {when}.",
                "Connections are refused after that.", WITH_AUTHORITY if certificate.last else RENEWS,
            )  # fmt: skip
