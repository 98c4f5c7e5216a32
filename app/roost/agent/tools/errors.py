"""How a tool says that it did not work, or was not let to."""

from __future__ import annotations


class ToolError(Exception):
    """The tool ran and it did not work: the model reads the sentence. `changed`: what it changed all the same."""

    def __init__(self, text: str, changed: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.changed = changed


class UnavailableError(ToolError):
    """What the tool needs is there and does not answer now: later it may."""


class CutOffError(ToolError):
    """It was ended while it ran: what it did by then stays."""


class RefusedError(Exception):
    """A guard kept it from being done: nothing was changed."""


class MissingError(ToolError):
    """There is no such file."""


class EndedError(Exception):
    """Whoever waited for a walk through the files was cancelled."""
