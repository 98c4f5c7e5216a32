"""`roost-host`: what a staged host can do with Python's standard library alone, packed into host.pyz."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from roost.hosts import report
from roost.hosts.accept import Runbook, Step, exit_code, init_of
from roost.hosts.firstboot import make_secrets
from roost.hosts.staged import load
from roost.ops.errors import RoostError

LONGEST_S = 86400.0


def main(words: Sequence[str] | None = None) -> int:
    """Run a verb; return the exit code."""
    parser = argparse.ArgumentParser(prog="roost-host", description="What a staged host can do by itself.")
    parser.add_argument("--staged", type=Path, metavar="FILE", help="another staged.json")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("report", help="say what this machine has, as JSON", add_help=False)
    verbs.add_parser("firstboot", help="make the keys of this host that are missing; prints where they are")
    accept = verbs.add_parser(
        "accept", help="start, ask, stop and look: exit 0 passed, 1 failed, 2 something is not built yet"
    )
    accept.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    accept.add_argument(
        "--timeout", type=_seconds, default=0.0, metavar="SECONDS",
        help="how long starting may take, and each answer; for slow machines and large models (default: 120 and 60)",
    )  # fmt: skip
    given, more = parser.parse_known_args(words)
    if given.verb == "report":
        return report.main(more)
    if more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    try:
        staged = load(given.staged)
        if given.verb == "firstboot":
            for path in make_secrets(staged):
                print(f"made {path}")
            return 0
        steps = Runbook(staged, init_of(staged.system), given.timeout).run(_quiet if given.as_json else _show)
    except RoostError as error:
        print(f"error: {error.message}\nfix: {error.fix}", file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        print(f"error: {error}\nfix: Run it as root.", file=sys.stderr)
        return 4
    if given.as_json:
        print(json.dumps([asdict(step) for step in steps], indent=1))
    return exit_code(steps)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {LONGEST_S:.0f}")
    return value


def _quiet(_step: Step) -> None:
    return


def _show(step: Step) -> None:
    print(f"{step.result:<8} {step.name}: {step.detail}", flush=True)
