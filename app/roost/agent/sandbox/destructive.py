"""Commands that destroy more than they are asked to: refused before they run, though the sandbox would hold most.

A net for honest mistakes, not a guard against malice: a command can be written in endless ways; what holds is
the sandbox.
"""

from __future__ import annotations

import re

RULES = (
    (
        r"\brm\s+(?:-\w+\s+|--\S+\s+)*(?:/|~|\$HOME|/\*|\.|\./|\.\.|\*|/workspace/?\*?)(?:\s|;|&|$)",
        "removes a whole tree",
    ),
    (r"\bfind\s+(?:/|\.)\S*\s+(?:.*\s)?-delete\b", "removes what it finds"),
    (r"\b(?:mkfs(?:\.\w+)?|wipefs|blkdiscard|fdisk|parted|sgdisk)\b", "writes to disks"),
    (r"\bdd\b.*\bof=/dev/", "writes to a device"),
    (r">\s*/dev/(?:sd|nvme|vd|mmcblk|mapper)", "writes to a device"),
    (r"\bgit\s+(?:reset\s+--hard|clean\s+-\w*f|push\s+.*(?:--force|-f)\b|checkout\s+--\s+\.)", "throws work away"),
    (r"\b(?:shutdown|reboot|poweroff|halt)\b", "stops the machine"),
    (r":\s*\(\s*\)\s*\{.*\}\s*;\s*:", "starts processes without end"),
    (r"\bch(?:mod|own)\s+(?:-\w*R\w*|--recursive)\s+\S+\s+(?:/|~)(?:\s|$)", "changes a whole tree"),
    (r"\b(?:curl|wget)\b[^|;&]*\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b", "runs what it fetched"),
    (r"\b(?:sudo|su|doas|pkexec)\b", "asks for another user's rights"),
    (r"\bshred\b", "destroys files beyond undoing"),
)  # fmt: skip
COMPILED = tuple((re.compile(pattern), why) for pattern, why in RULES)


def destructive(command: str) -> str:
    """Return why a command is refused; '' if nothing is known against it."""
    return next((why for pattern, why in COMPILED if pattern.search(command)), "")
