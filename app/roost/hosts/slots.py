"""PCI addresses as sysfs writes them. Standard library only, Python 3.9+."""

from __future__ import annotations

import re

SLOT = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)


def normal_slot(text: str) -> str:
    """Write a PCI address the way sysfs does: `0000:01:00.0`; unknown forms stay as they are."""
    found = SLOT.search(text)
    if not found:
        return text
    domain, bus, device, function = found.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{device}.{function}".lower()
