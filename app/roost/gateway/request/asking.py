"""What a client may say in headers about how its request shall be served."""

from __future__ import annotations

import math

from starlette.types import Scope

from roost.gateway.balance.prefix import session_of
from roost.gateway.connection.fields import fields_of
from roost.gateway.errors import ApiError

FALLBACK_HEADER = "x-roost-fallback"
WAIT_HEADER = "x-roost-wait"
SESSION_HEADER = "x-roost-session"
LONGEST_SESSION = 256


def forgiving(scope: Scope) -> bool:
    """Say whether another model may answer: not if the client says `X-Roost-Fallback: never`."""
    return fields_of(scope).get(FALLBACK_HEADER, "").strip().lower() != "never"


def wait_in(scope: Scope, usual_s: float, longest_s: float) -> float:
    """Return how long the request may wait, in seconds: what `X-Roost-Wait` says, up to the longest there is.

    Raises:
        ApiError: 400, that is no number of seconds.
    """
    said = fields_of(scope).get(WAIT_HEADER)
    if said is None:
        return usual_s
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ApiError(400, f"The header {WAIT_HEADER} is {said[:40]!r}; it is a number of seconds.")
    return min(seconds, max(usual_s, longest_s))


def session_in(scope: Scope, body: bytes) -> str:
    """Return the session that a request belongs to: by `X-Roost-Session`, or by a field of its body; or nothing."""
    return fields_of(scope).get(SESSION_HEADER, "").strip()[:LONGEST_SESSION] or session_of(body)
