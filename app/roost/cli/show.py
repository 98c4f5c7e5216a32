"""How verbs print: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 1000  # a table takes what it needs; the terminal wraps, and a pipe gets whole lines
LATIN_CONTROLS = range(0x7F, 0xA0)
"""DEL and C1: terminals act on these as on the ones below 0x20."""
WRITTEN_OUT: dict[int, str] = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *LATIN_CONTROLS) if chr(code) not in "\n\t\r"
} | {ord("\r"): ""}
IN_JSON = {code: f"\\u{code:04x}" for code in LATIN_CONTROLS}
GOOD, BAD = "green", "red"
STATE_STYLES = {
    "running": GOOD, "ready": GOOD, "verified": GOOD, "healthy": GOOD,
    "drained": "yellow", "ejected": "yellow", "loading": "yellow", "pending": "yellow", "starting": "yellow",
    "down": BAD, "gone": BAD, "dead": BAD, "failed": BAD, "not ready": BAD, "unreachable": BAD,
}  # fmt: skip


def plain(text: str) -> str:
    """Return other people's text as a terminal may get it: what it would act on is written out, such as `\\x1b`."""
    return text.translate(WRITTEN_OUT).encode(errors="backslashreplace").decode()


def print_json(document: object) -> None:
    """Print a document as JSON."""
    print(_printable(json.dumps(document, indent=2, ensure_ascii=False)))


def json_line(document: object) -> str:
    """Return a document as one line of JSON for a terminal or a program."""
    return _printable(json.dumps(document, ensure_ascii=False))


def _printable(text: str) -> str:
    return text.translate(IN_JSON).encode(errors="backslashreplace").decode()


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, indent: int = 0) -> None:
    """Print rows under their heads; words that name a state get its colour on a terminal."""
    table = Table(*heads, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        cells = ["" if cell is None else plain(str(cell)) for cell in row]
        table.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in cells))
    console = Console(highlight=False, width=WIDE)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(" " * indent + line.rstrip())


def local_time(text: str | None) -> str:
    """Write an ISO time as the clock on the wall here shows it, to the minute; what is none stays as it is."""
    try:
        when = datetime.fromisoformat(text or "")
    except ValueError:
        return text or ""
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone().strftime("%Y-%m-%d %H:%M")


def size(count: int) -> str:
    """Write bytes for people: `94 MiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError(count)
