"""Reading single numbers from a server's metrics: https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

import math
from collections.abc import Mapping


def read_samples(text: bytes) -> dict[str, list[float]]:
    """Return the samples by name, whatever their labels; what is not understood is passed over.

    A label's value may hold blanks and braces, so the name ends at the first brace and the value follows the last one.
    """
    found: dict[str, list[float]] = {}
    for line in text.decode(errors="replace").splitlines():
        if line.startswith("#"):
            continue
        name, brace, rest = line.partition("{")
        if brace:
            words = rest.rpartition("}")[2].split()
        else:
            name, *words = line.split() or [""]
        try:
            value = float(words[0])
        except (IndexError, ValueError):
            continue
        if not math.isfinite(value):
            continue
        found.setdefault(name.strip(), []).append(value)
    return found


def total(samples: Mapping[str, list[float]], *names: str) -> float | None:
    """Return the sum of the samples of the first of the names that there is; None if there is none of them."""
    return next((sum(samples[name]) for name in names if name in samples), None)
