"""What a run of bootstrap.sh ends with: the model's answer and where everything is; or what would change.

Runs as `python -m roost.ops.outcome` for bootstrap.sh.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roost.ops.errors import RoostError
from roost.ops.progress import count
from roost.ops.site import Site, load_site

LINE_END = "\x1f"


def final_screen(report: dict[str, Any], site: Site) -> str:
    """Return the last words of a good run. `report` is what `roost verify` wrote."""
    rate = report.get("tokens_per_s")
    speed = f", {rate:.0f} tokens/s" if rate else ""
    answer = " ".join(str(report.get("answer", "")).split())
    rows = [
        ("Question", str(report.get("question", ""))),
        ("Answer", answer),
        ("", f"{report.get('model', '')}{speed}"),
        None,
        ("API", f"{site.api}/v1"),
        *([("On the LAN", f"{site.api_listen}/v1   (authority: {site.nomad_ca})")] if site.api_listen else []),
        ("Web", site.web),
        ("Nomad UI", f"{site.nomad}/   (browser certificate: {site.nomad_cert.with_suffix('.p12')})"),
        ("API key", str(site.api_key_file)),
        None,
        ("Next", 'roost chat "Name three rivers."    roost setup    roost status    roost doctor    roost --help'),
        *([("", site.better_plan)] if site.better_plan else []),
    ]
    lines = ["" if row is None else f"  {row[0]:<10} {row[1]}".rstrip() for row in rows]
    return "\n".join(["", "Roost is running.", *lines, ""])


def check_screen(summary: dict[str, Any], also: Sequence[str]) -> str:
    """Return the last words of a run with --check.

    `summary` is what the playbook's callback wrote, `also` what bootstrap.sh itself would do before it.
    """
    tasks = [*also, *(str(name) for name in summary.get("changed_tasks", []))]
    if not tasks:
        return "\nA run would change nothing.\n"
    lines = [f"  {name}" for name in tasks]
    return "\n".join(["", f"A run would change {count(len(tasks), 'thing')}:", *lines, "", "Nothing was changed.", ""])


def failure_text(summary: dict[str, Any]) -> str:
    """Return why a playbook failed, as `STEP<TAB>REASON<TAB>FIX`; empty if the playbook did not say.

    It is one line for the shell: the lines of a reason are separated by the character 0x1F.
    """
    failure = summary.get("failure") or {}
    fields = [_one_line(str(failure.get(key, ""))) for key in ("step", "reason", "fix")]
    return "\t".join(fields) if fields[1] else ""


def _one_line(text: str) -> str:
    return LINE_END.join(line.rstrip().replace("\t", " ") for line in text.strip().splitlines())


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="roost.ops.outcome")
    parser.add_argument("what", choices=["final", "check", "failure"])
    parser.add_argument("file", type=Path)
    parser.add_argument("also", type=Path, nargs="?", help="with check: a file with further changes, one a line")
    args = parser.parse_args(argv)
    try:
        content = json.loads(args.file.read_text())
        if args.what == "final":
            print(final_screen(content, load_site()))
        elif args.what == "check":
            print(check_screen(content, args.also.read_text().splitlines() if args.also else []))
        else:
            print(failure_text(content))
    except (OSError, ValueError, RoostError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
