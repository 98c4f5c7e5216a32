"""A second try at a stronger model where an answer is not good enough: who is next, and what the first try was."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.types import Scope

from roost.gateway.choice.verdict import Objection, Wanted, objection
from roost.gateway.connection.fields import fields_of
from roost.gateway.errors import ApiError
from roost.gateway.request.kinds import Kind

CASCADE_HEADER = "x-roost-cascade"
POLICIES = {"": None, "on": True, "off": False}


class RejectedAnswerError(Exception):
    """A whole answer that is not good enough; nothing of it has reached the client."""

    def __init__(self, why: Objection, body: bytes, content_type: bytes) -> None:
        super().__init__(why.value)
        self.why = why
        self.body = body
        self.content_type = content_type


@dataclass
class Cascade:
    """The slots that may try after the first one, the next one first; one object a request."""

    wanted: Wanted
    left: deque[str]
    rejected: list[tuple[str, Objection]] = field(default_factory=list)  # models and what was wrong with their answers

    def check(self, kind: Kind, body: bytes, content_type: bytes) -> None:
        """See whether an answer may be passed on; the last one may, whatever it is.

        Raises:
            RejectedAnswerError: it may not.
        """
        if self.left and (why := objection(kind, self.wanted, body)):
            raise RejectedAnswerError(why, body, content_type)

    def header(self) -> str:
        """Return what was rejected as the header `x-roost-cascade` has it: `model:why`, separated by commas."""
        return ", ".join(f"{model}:{why.value}" for model, why in self.rejected)


def cascade_wish(scope: Scope) -> bool | None:
    """Return whether the client wants a second try, by `X-Roost-Cascade: on` or `off`; None if it does not say.

    Raises:
        ApiError: the header says something else.
    """
    said = fields_of(scope).get(CASCADE_HEADER, "").strip().lower()
    if said not in POLICIES:
        raise ApiError(400, f"The header {CASCADE_HEADER} is {said[:40]!r}; it can be on or off.")
    return POLICIES[said]


def plan(wanted: Wanted, stronger: Sequence[str], steps: int) -> Cascade | None:
    """Return a cascade of at most so many further tries, or None if there is nobody to try."""
    return Cascade(wanted, deque(stronger[:steps])) if steps > 0 and stronger else None
