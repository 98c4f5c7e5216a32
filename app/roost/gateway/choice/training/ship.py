"""`python -m roost.gateway.choice.training.ship`: trains the router that comes with Roost anew."""

from __future__ import annotations

import sys
from pathlib import Path

from roost.gateway.choice import semantic
from roost.gateway.choice.training.examples import shipped_examples
from roost.gateway.choice.training.fit import train
from roost.ops.files import write_atomic

ORIGIN = "shipped"


def main() -> None:
    """Train and write."""
    file = train(shipped_examples(), origin=ORIGIN)
    path = Path(semantic.__file__).with_name(semantic.SHIPPED)
    write_atomic(path, file.text() + "\n")
    sys.stdout.write(f"{path}: {file.about()}\n")


if __name__ == "__main__":
    main()
