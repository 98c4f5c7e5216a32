"""The one error that reaches a user: a sentence, and what to do about it."""

from __future__ import annotations


class RoostError(Exception):
    """Something went wrong that the user can act on.

    The command line prints `message` and `fix` and exits with `exit_code`; it never shows a traceback for it.
    """

    def __init__(self, message: str, *, fix: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message} Fix: {self.fix}" if self.fix else self.message
