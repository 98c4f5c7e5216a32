"""Figures of a long measurement as they become known, and those of another machine: `--output` there, `--take` here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.results import machine


@dataclass
class Notes:
    """Keeps what is known so far in a file, if there is one: a measurement that is cut off has lost nothing."""

    output: Path | None = None
    machine: dict[str, Any] = field(default_factory=machine)

    def keep(self, figures: Mapping[str, Any]) -> None:
        """Write all figures in place of those before."""
        if self.output is not None:
            text = json.dumps({"machine": self.machine, "measured": dict(figures)}, indent=1) + "\n"
            new = self.output.with_name(self.output.name + ".new")
            new.write_text(text)
            new.replace(self.output)


def add_transfer(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--output", type=Path, help="write what is known here as it comes, and change no result")
    parser.add_argument(
        "--take",
        type=Path,
        action="append",
        default=[],
        help="take what --output wrote, and measure nothing; repeatable",
    )


def taken(files: Sequence[Path], notes: Notes) -> dict[str, Any]:
    """Return the figures of files together; `notes` describe that machine from then on."""
    figures: dict[str, Any] = {}
    for path in files:
        document = json.loads(path.read_text())
        figures |= document["measured"]
        notes.machine = document["machine"]
    return figures
