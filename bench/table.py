"""Write the newest results of each kind as a table between the markers of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.results import ROOT, load

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- bench{}: begin (written by bench/run) -->"
END = "<!-- bench{}: end -->"


def newest(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The last result of each name; `results` are oldest first."""
    last = {str(result["name"]): result for result in results}
    return [last[name] for name in sorted(last)]


def rows(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Figures of a result, one row each; lists and nested figures stay in the JSON file."""
    shown = {name: value for name, value in measured.items() if isinstance(value, int | float | str)}
    return [(name, " ".join(str(value).split())) for name, value in shown.items()]


def render(results: Iterable[Mapping[str, Any]]) -> str:
    """The tables as Markdown."""
    parts = []
    for result in newest(results):
        machine = result["machine"]
        parts.append(f"### {result['name']}\n")
        parts.append(
            f"{result['date']}, revision {result['revision']}: {machine['cores']} cores ({machine['cpu']}), "
            f"{machine['memory_mib']} MiB, Linux {machine['kernel']}.\n"
        )
        parts.append("| figure | value |\n|---|---:|")
        parts.append("\n".join(f"| {name} | {value} |" for name, value in rows(result["measured"])) + "\n")
    return "\n".join(parts)


def replace(page: str, table: str, part: str = "") -> str:
    """Put the table between the markers of a page, or of one `part` of it.

    Raises:
        ValueError: the page lacks them.
    """
    name = f" {part}" if part else ""
    begins, ends = BEGIN.format(name), END.format(name)
    before, begin, rest = page.partition(begins)
    _, end, after = rest.partition(ends)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks the markers {begins} and {ends}")
    return f"{before}{begins}\n\n{table}\n{ends}{after}"


if __name__ == "__main__":
    PAGE.write_text(replace(PAGE.read_text(), render(load())))
