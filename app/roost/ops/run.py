"""Run external programs; a failure becomes a `RoostError` that says what the program said."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from roost.ops.errors import RoostError

TAIL_LINES = 15


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout_s: float | None = None,
    fix: str = "",
) -> str:
    """Run `argv` without a shell and return its standard output as text.

    `env` replaces the whole environment when given. Standard input is closed unless `stdin` is given.

    Raises:
        RoostError: the program is missing, ran longer than `timeout_s` seconds, or exited non-zero; the message
            ends with the last lines of its output.
    """
    words = [str(a) for a in argv]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise RoostError(f"The program {words[0]!r} is not installed.", fix=fix or f"Install {words[0]!r}.") from None
    except subprocess.TimeoutExpired:
        raise RoostError(f"`{shlex.join(words)}` did not end within {timeout_s:.0f} s.", fix=fix) from None
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-TAIL_LINES:])
        raise RoostError(f"`{shlex.join(words)}` failed with exit code {done.returncode}:\n{tail}", fix=fix)
    return done.stdout
