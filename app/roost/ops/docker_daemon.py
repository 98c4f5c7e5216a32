"""Wait until Docker's daemon answers; say why where it does not. An init system's "started" is no answer."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from roost.ops.errors import RoostError
from roost.ops.run import run

POLL_S = 0.25
ASK_TIMEOUT_S = 10.0
ASK = ("docker", "version", "--format", "{{.Server.Version}}")
# How dockerd ends its log when it gives up, after the prefix of whoever keeps the log.
REASON = re.compile(r"failed to start daemon: (?P<reason>.+)$", re.MULTILINE)


def wait_for_docker(log: Sequence[str], timeout_s: float) -> str:
    """Wait until the daemon answers and return its version; `log` is the command that shows its log.

    Raises:
        RoostError: no answer within `timeout_s` seconds; the message has the daemon's own reason, if it gave one.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return run(ASK, timeout_s=ASK_TIMEOUT_S).strip()
        except RoostError as error:
            problem = error.message
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    try:
        reason = reason_in(run(log, timeout_s=ASK_TIMEOUT_S))
    except RoostError:
        reason = ""
    raise RoostError(f"Docker does not run: {reason or problem}", fix=fix_for(reason, log))


def reason_in(log: str) -> str:
    """Return why the daemon last gave up, in its own words, or an empty string."""
    found = REASON.findall(log)
    return str(found[-1]).strip() if found else ""


def fix_for(reason: str, log: Sequence[str]) -> str:
    """Return what to do about a daemon that gave up for `reason`."""
    if "ip_forward" in reason:
        return (
            "Turn IP forwarding on with `sysctl -w net.ipv4.ip_forward=1` (for a container: on the machine that "
            "runs it), or use `./bootstrap.sh --run-local`, which needs no Docker."
        )
    return f"Read its log with `{' '.join(log)}`, correct that, and run it again."
