"""Marks that turn the direction of writing: with them a line shows something else than it says."""

from __future__ import annotations

DIRECTIONS = {
    code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Each mark (https://www.unicode.org/reports/tr9/) written out, for `str.translate`; within JSON it stays the same."""
