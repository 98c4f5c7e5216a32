"""How a tool says that it did not work, or was not let to."""

from __future__ import annotations


class ToolError(Exception):
    """The tool ran and it did not work: the model reads the sentence."""


class RefusedError(Exception):
    """A guard kept it from being done: nothing was changed."""


class MissingError(ToolError):
    """There is no such file."""
