"""Commands that destroy more than they are asked to: refused, or asked about, before they run.

A net for honest mistakes, not a guard against malice: a command can be written in endless ways; what holds is
the sandbox. What can only harm the workspace, which is the user's, they may allow; nothing else.
"""

from __future__ import annotations

import re

RM = r"\brm\s+(?:-\w+\s+|--\S+\s+)*"
END = r"(?:\s|;|&|$)"
GIT = r"\bgit\s+(?:-\S+\s+(?:[^-\s]\S*\s+)?)*"
RISKY = (
    (rf"{RM}[\"']?(?:\.|\./|(?:\./)?\*|\$\{{?PWD\}}?/?\*?|/workspace/?\*?)[\"']?{END}", "removes a whole tree"),
    (r"\bfind\s.*(?:-delete\b|-exec(?:dir)?\s+rm\b)|\bxargs\s+(?:-\S+\s+)*rm\b", "removes what it finds"),
    (
        (
            rf"{GIT}(?:reset\s+(?:.*\s)?--hard|clean\s+(?:.*\s)?-\w*f|push\s+(?:.*\s)?(?:--force|-f\b|\+)"
            rf"|checkout\s+(?:-\S+\s+)*\.{END}|restore\s+(?:-\S+\s+)*\.{END})"
        ),
        "throws work away",
    ),
    (r"(?:^|[;&|(]\s*|\b(?:xargs|env|nice|time)\s+)shred\b", "destroys files beyond undoing"),
)
DESTRUCTIVE = (
    (rf"{RM}(?:/|~|\$HOME|/\*|\.\.){END}", "removes a whole tree"),
    (r"\b(?:mkfs(?:\.\w+)?|wipefs|blkdiscard|fdisk|parted|sgdisk)\b", "writes to disks"),
    (r"\bdd\b.*\bof=/dev/", "writes to a device"),
    (r">\s*/dev/(?:sd|nvme|vd|mmcblk|mapper)", "writes to a device"),
    (r"\b(?:shutdown|reboot|poweroff|halt)\b", "stops the machine"),
    (r":\s*\(\s*\)\s*\{.*\}\s*;\s*:", "starts processes without end"),
    (r"\bch(?:mod|own)\s+(?:-\w*R\w*|--recursive)\s+\S+\s+(?:/|~)(?:\s|$)", "changes a whole tree"),
    (r"\b(?:curl|wget)\b[^|;&]*\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b", "runs what it fetched"),
    (r"\b(?:sudo|su|doas|pkexec)\b", "asks for another user's rights"),
)
COMPILED = {name: tuple((re.compile(pattern), why) for pattern, why in rules) for name, rules in
            (("risky", RISKY), ("destructive", DESTRUCTIVE))}  # fmt: skip


def risky(command: str) -> str:
    """Return all that a command does that the user is asked about first; '' where nothing is known against it.

    Always in the same order: who allows one kind of harm allows no other that stands beside it.
    """
    return " and ".join(_whys("risky", command))


def destructive(command: str) -> str:
    """Return why a command is refused, whatever the user says; '' if it is not."""
    return next(iter(_whys("destructive", command)), "")


def _whys(rules: str, command: str) -> list[str]:
    return [why for pattern, why in COMPILED[rules] if pattern.search(command)]
