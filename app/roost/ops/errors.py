"""The one error that reaches a user: a sentence, and what to do about it."""

from __future__ import annotations

import errno

USAGE = 2
"""Exit code of wrong usage: an option, an argument or a choice that there is not, or nobody there to be asked."""
NOT_ALLOWED = 4
"""Exit code where another user, or another key, may and this one may not."""
NOT_FOUND = 6
"""Exit code of every verb that was asked for something which is not there, by its name."""

OTHER_HUB = 8
"""Exit code: another hub answers than before."""


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


def reason_of(text: str) -> str:
    """Return what a RoostError said without its fix, as the beginning of a sentence; another text as it is."""
    return text.partition(" Fix: ")[0].rstrip(".")


def user_message(error: Exception) -> str:
    """Return what to tell the user: a RoostError's own words, and for the system's errors what to do about them."""
    if not isinstance(error, OSError):
        return str(error)
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return str(RoostError(f"The disk is full{where}.", fix="Free space (`df -h`) and run it again."))
    if error.errno == errno.EROFS:
        return str(RoostError(f"The file system is read-only{where}.", fix="Look at `dmesg`, mount it writable."))
    if error.errno in {errno.EACCES, errno.EPERM}:
        return str(RoostError(f"The system does not allow it{where}.", fix="Run it as root."))
    return str(error)
