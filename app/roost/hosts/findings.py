"""What a check found: what it is, why it matters, how to put it right. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
ORDER: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing found. `id` is stable and names the check; `info` is worth knowing and needs nothing done."""

    id: str
    severity: Severity
    what: str
    why: str
    fix: str


@dataclass(frozen=True)
class NotChecked:
    """Something that was not looked at, and why not or how it could be: no finding vouches for it."""

    what: str
    why: str


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """Return those that stop what was wanted."""
    return [f for f in findings if f.severity == "error"]


def warnings(findings: Sequence[Finding]) -> list[Finding]:
    """Return those that should be looked at."""
    return [f for f in findings if f.severity == "warning"]


def as_text(findings: Sequence[Finding]) -> str:
    """Return all findings for reading, the worst first."""
    ranked = sorted(findings, key=lambda f: ORDER.index(f.severity))
    return "\n".join(f"{f.severity}: {f.what}\n    why: {f.why}\n    fix: {f.fix}" for f in ranked)


def not_checked_text(skipped: Sequence[NotChecked]) -> str:
    """Return a line for each thing that was not looked at."""
    return "\n".join(f"not checked: {item.what}: {item.why}" for item in skipped)


def table(found: Mapping[str, Sequence[Finding]]) -> str:
    """Return the findings of several machines for reading, the worst first; what is the same on several stands once."""
    if len(found) == 1:
        return as_text(next(iter(found.values())))
    where: dict[Finding, list[str]] = {}
    for machine, findings in found.items():
        for finding in findings:
            where.setdefault(finding, []).append(machine)
    ranked = sorted(where, key=lambda f: (ORDER.index(f.severity), list(found).index(where[f][0])))
    width = max((len(", ".join(machines)) for machines in where.values()), default=0)
    below = " " * (width + 2)
    return "\n".join(
        f"{', '.join(where[f]):{width}}  {f.severity}: {f.what}\n{below}    why: {f.why}\n{below}    fix: {f.fix}"
        for f in ranked
    )
