"""What a machine knew as a server of Nomad, on its disk: out of the way, and gone once the others forgot it."""

from __future__ import annotations

import shutil
from pathlib import Path

from roost.ops.errors import RoostError

SERVER_PART, ASIDE = "server", "server-before"  # below Nomad's folder of data


def put_aside(data_dir: Path) -> bool:
    """Move what a machine knew as a server out of the way, in place of what was moved before; return whether it did.

    What it knew would be wrong if it became a server again: it shall begin with nothing then.

    Raises:
        RoostError: it cannot be moved.
    """
    old, aside = data_dir / SERVER_PART, data_dir / ASIDE
    if not old.is_dir():
        return False
    try:
        if aside.exists():
            shutil.rmtree(aside)
        old.rename(aside)
        aside.chmod(0o700)
    except OSError as error:
        raise RoostError(f"{old} cannot be moved to {aside}: {error.strerror}.") from None
    return True


def discard(data_dir: Path) -> bool:
    """Remove what was put aside once the others forgot the server; return whether there was anything.

    It holds all of Nomad's tokens and variables, and its keys, which a machine that is no server has no use for.

    Raises:
        RoostError: it cannot be removed.
    """
    aside = data_dir / ASIDE
    if not aside.exists():
        return False
    try:
        shutil.rmtree(aside)
    except OSError as error:
        raise RoostError(f"{aside} cannot be removed: {error.strerror}.") from None
    return True
