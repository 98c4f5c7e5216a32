"""What the system says becomes a sentence with a way out."""

from __future__ import annotations

import errno

from roost.ops.errors import RoostError, user_message


def test_a_full_disk_is_named_with_its_file() -> None:
    said = user_message(OSError(errno.ENOSPC, "No space left on device", "/var/lib/roost/x"))
    assert said.startswith("The disk is full (/var/lib/roost/x). Fix: Free space")


def test_own_words_stay() -> None:
    assert user_message(RoostError("No.", fix="Do.")) == "No. Fix: Do."
    assert user_message(OSError(errno.EIO, "Input/output error", "/x")) == "[Errno 5] Input/output error: '/x'"
