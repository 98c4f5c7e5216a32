"""What was the matter with a request, as a value of a closed set: for the label `error` and for `error.type`."""

from __future__ import annotations

CONTEXT = "context_length_exceeded"
INTERRUPTED = "interrupted"  # a stream whose model server was lost
BY_STATUS = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "invalid",
    408: "too_slow",
    413: "too_large",
    422: "invalid",
    429: "limited",
    499: "client_left",
    500: "internal",
    501: "not_offered",
    502: "engine_failed",
    503: "unavailable",
    504: "unavailable",
    507: "unavailable",
    0: "stopping",  # the service was stopped under it
}
OTHER = "other"
ERRORS = frozenset({*BY_STATUS.values(), CONTEXT, INTERRUPTED, OTHER})


def error_of(status: int, code: str | None, *, cut: bool) -> str:
    """Return what was the matter, or nothing; `code` is that of an `ApiError`, `cut` a stream that was broken off."""
    if code == CONTEXT:
        return CONTEXT
    if cut and status:
        return INTERRUPTED
    if 200 <= status < 300:
        return ""
    return BY_STATUS.get(status, OTHER)
