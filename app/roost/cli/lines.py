"""A conversation at a terminal, or through a pipe: line by line, until the input ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from roost.cli.show import plain
from roost.ops.errors import RoostError

QUIT = frozenset({"/quit", "/exit"})


def converse(take: Callable[[str], None], about: str, *, interactive: bool) -> None:
    """Hand each line to `take`; `about` says at a terminal what may be typed. Ctrl-C there stops an answer only.

    Raises:
        RoostError: `take` failed and nobody sits there to read it.
        KeyboardInterrupt: the input is a pipe.
    """
    if interactive:
        sys.stderr.write(f"{about}\n")
    while True:
        try:
            line = input("> " if interactive else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            print()
            continue
        if line.strip() in QUIT:
            return
        if line.strip():
            _took(take, line, interactive=interactive)


def _took(take: Callable[[str], None], line: str, *, interactive: bool) -> None:
    try:
        take(line)
    except KeyboardInterrupt:
        if not interactive:
            raise
        sys.stderr.write("(cancelled)\n")
    except RoostError as error:
        if not interactive:
            raise
        sys.stderr.write(f"error: {plain(error.message)}\n")
        if error.fix:
            sys.stderr.write(f"fix: {plain(error.fix)}\n")
