"""What happened to a context, to be shown, logged and kept in the session: nothing is shortened in silence."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, JsonValue


class Kind(StrEnum):
    """What happened."""

    GATED = "gated"
    """A text was shortened on entry; the whole of it can be fetched by its reference."""
    COMPACTED = "compacted"
    """Turns were put into topics and summarised."""
    FOLDED = "folded"
    """Summaries were summarised once more."""
    TRIMMED = "trimmed"
    """Parts of a prompt were shortened or left out so that it fits."""
    ROLLED_OVER = "rolled_over"
    """The session is full: it goes on in a new one that knows the summary."""
    ESCALATED = "escalated"
    """Compaction was not enough; `detail.step` says what was done next. The user has to see it."""
    MODE_CHANGED = "mode_changed"
    REPAIRED = "repaired"
    """Messages were rearranged for the model's template."""
    PREFIX_BROKEN = "prefix_broken"
    """A request does not begin as the one before it, so that the server reads its prompt again; `detail.reason`."""


class ContextEvent(BaseModel):
    """One event. `message` is a sentence for the user, `detail` numbers and references."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    message: str
    detail: dict[str, JsonValue] = {}

    @property
    def visible(self) -> bool:
        """Say whether the user is to see it without asking."""
        return self.kind in {Kind.ESCALATED, Kind.ROLLED_OVER, Kind.MODE_CHANGED}
