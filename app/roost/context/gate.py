"""The content gate: what comes in raw, as a briefing, or as a reference to drill down by, according to a budget.

Nothing is shortened in silence: what a model reads says how much there was and by what reference any part of the whole
can be had again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from roost.context.blobs import BlobStore
from roost.context.briefing import brief
from roost.context.budget import BYTES_PER_TOKEN
from roost.context.tokens import TokenCounter

SHRINK = 0.85
ATTEMPTS = 8
WORTH_BYTES = 80
"""A briefing of fewer bytes says nothing that the reference does not."""
CERTAIN = 16
"""A text of more bytes than this for each token allowed is not counted: it is too long unless it is mostly blanks."""


class Form(StrEnum):
    """How a text was let in."""

    RAW = "raw"
    BRIEFING = "briefing"
    REFERENCE = "reference"
    """Only what it is and how to get at it: the budget had no room for more."""


@dataclass(frozen=True)
class Admitted:
    """What a model is shown of a text. `reference` is empty for a raw one; `size` is the whole's, in bytes."""

    text: str
    form: Form
    size: int
    reference: str = ""
    tokens: int = 0


def marker(size: int, reference: str, what: str = "") -> str:
    """Return the line that says that a text was shortened, and how to get at the whole."""
    return f"[Shortened{what and f' to its {what}'}: {size} bytes in all; read any part of it by {reference}]"


@dataclass(frozen=True)
class Gate:
    """The gate for the texts of one owner, in the tokens of one model."""

    blobs: BlobStore
    owner: str
    counter: TokenCounter

    async def admit(self, text: str, tokens: int, *, name: str = "", most_bytes: int | None = None) -> Admitted:
        """Let a text in that may take `tokens`, and `most_bytes` if given; see `admit`."""
        return await admit(
            text, tokens, blobs=self.blobs, owner=self.owner, counter=self.counter, name=name, most_bytes=most_bytes
        )

    def drill(self, reference: str, start: int = 0, length: int = 4096) -> str:
        """Return part of a whole text by bytes; a character cut at either end shows as U+FFFD.

        Raises:
            BlobNotFoundError: the owner has no such text.
        """
        return self.blobs.get(self.owner, reference, start, length).decode("utf-8", "replace")


async def admit(
    text: str,
    tokens: int,
    *,
    blobs: BlobStore,
    owner: str,
    counter: TokenCounter,
    name: str = "",
    most_bytes: int | None = None,
) -> Admitted:
    """Return what a model is shown of a text that may take `tokens`, and `most_bytes` if given.

    `name` is a file name or address, which tells what kind of text it is. The marker itself is shown in any case.

    Raises:
        BlobsFullError: the whole cannot be kept, so nothing may be cut.
    """
    data = text.encode("utf-8", "surrogatepass")
    allowed = len(data) if most_bytes is None else most_bytes
    if len(data) <= allowed and len(data) <= CERTAIN * max(tokens, 1):
        count = await counter.text(text)
        if count <= tokens:
            return Admitted(text, Form.RAW, len(data), tokens=count)
    reference = await asyncio.to_thread(blobs.put, owner, data)
    room = min(tokens * BYTES_PER_TOKEN, allowed)
    for _ in range(ATTEMPTS):
        if room < WORTH_BYTES:
            break
        briefing = await asyncio.to_thread(brief, text, name, room)
        shown = f"{marker(len(data), reference, briefing.what)}\n{briefing.text}"
        count = await counter.text(shown)
        if count <= tokens and len(shown.encode("utf-8", "replace")) <= max(allowed, room):
            return Admitted(shown, Form.BRIEFING, len(data), reference, count)
        room = int(room * SHRINK * min(1.0, tokens / max(count, 1)))
    shown = marker(len(data), reference)
    return Admitted(shown, Form.REFERENCE, len(data), reference, await counter.text(shown))
