"""When to ask a server again that refused for now: pure arithmetic.

Waits double from attempt to attempt and are spread by chance, so that many machines do not come back as one. What the
server asks for with `Retry-After` (RFC 9110, 10.2.3) or `RateLimit: "name";r=0;t=55` (IETF draft
ratelimit-headers-09, as model hubs send it) is the least.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
ATTEMPTS = 6  # refusals in a row, without a byte between them
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
LONGEST_ASKED_S = 300.0
RATE_LIMIT = re.compile(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)")


def asked_wait_s(headers: Mapping[str, str], now: datetime) -> float:
    """Return the seconds that a server asks to wait; 0 when it asks for none, or unreadably."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    if text:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
    limit = RATE_LIMIT.search(headers.get("RateLimit", ""))
    return float(limit[1]) if limit else 0.0


def wait_s(attempt: int, asked_s: float, chance: float) -> float | None:
    """Return the seconds to wait after refusal number `attempt` (from 1), or None to give up.

    `chance` is a random number from 0 to 1.
    """
    if attempt >= ATTEMPTS or asked_s > LONGEST_ASKED_S:
        return None
    longest: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1))
    return asked_s + longest * (1 + chance) / 2
