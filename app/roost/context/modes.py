"""Which cost mode holds: what the files say, what an administrator changed at run time, what a session chose.

The override lies where limits are kept (`KeyDocument`), so that playbooks leave it alone and every replica sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from roost.context.budget import DEFAULT_MODE, CostMode
from roost.ops.api_keys import KeyDocument
from roost.ops.errors import RoostError


class Origin(StrEnum):
    """Where a cost mode comes from."""

    DEFAULT = "group_vars"
    OVERRIDE = "set at run time"
    SESSION = "chosen in the session"


@dataclass(frozen=True)
class Chosen:
    """The mode that holds, and why."""

    mode: CostMode
    origin: Origin


def parse_mode(text: str) -> CostMode:
    """Return the mode of a name.

    Raises:
        RoostError: there is none of that name.
    """
    try:
        return CostMode(text.strip().lower())
    except ValueError:
        names = ", ".join(CostMode)
        raise RoostError(f"There is no cost mode {text!r}.", fix=f"Use one of {names}.") from None


def set_cost_mode(document: KeyDocument, mode: CostMode | None) -> KeyDocument:
    """Return the document with another mode for the whole fleet, or without an override (None).

    Every threshold changes with it, because each is asked of `budget.bounds` when it is needed.
    """
    return document.model_copy(update={"cost_mode": "" if mode is None else mode.value})


def chosen_mode(override: str, default: str = "", session: CostMode | None = None) -> Chosen:
    """Return the mode that holds: the session's, else the override, else the files' `default`, else `smart`.

    Raises:
        RoostError: the files or the override name a mode that there is not.
    """
    if session is not None:
        return Chosen(session, Origin.SESSION)
    if override:
        return Chosen(parse_mode(override), Origin.OVERRIDE)
    return Chosen(parse_mode(default) if default else DEFAULT_MODE, Origin.DEFAULT)
