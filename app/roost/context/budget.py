"""Cost modes and the bounds that follow from them: the one place where a threshold of a session or a prompt stands.

A mode bounds the session in bytes and in turns that stay as they were said; the slot's real context bounds the prompt
in tokens. `bounds` returns all of it, and whoever appends, compacts, packs or rolls over asks it each time, so that
another mode changes every threshold at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from roost.ops.errors import RoostError

CONTEXT_SHARE = 0.9
"""How much of a slot's context prompt and reply may take together."""
REPLY_SHARE = 0.25
"""The most of that which is kept free for the reply."""
REPLY_TOKENS = 1024
"""What is kept free for the reply unless the caller says otherwise."""
HEAD_SHARE = 0.3
"""The most of a context that the head of a prompt may take: system, lite parts and tool schemas together."""
SUMMARISER_SHARE = 0.7
"""The most of a summariser's context that one summarising step may take."""
SUMMARY_SHARE = 0.3
"""How much of a prompt summaries of earlier topics may take."""
COMPACT_TO_SHARE = 0.6
"""Compaction goes on until a prompt is down to this share of its bound, so that the next one is far away."""
RESULT_SHARE = 0.25
"""The most of a prompt that one tool result may take, in any mode."""
MESSAGE_SHARE = 0.5
"""The most of a prompt, and of a session, that any other message may take, in any mode."""
LITE_SHARES: Mapping[str, float] = MappingProxyType(
    {"bootstrap": 0.02, "memory": 0.01, "skills": 0.02, "profiles": 0.01}
)
"""What each part of a lite prompt may take of the context."""
VERBATIM_TURNS = 3
"""Turns at the end that no compaction touches: the one under way and two before it."""
BYTES_PER_TOKEN = 4
"""About what a token of English or code is; only ever used to guess a size before the server counts."""


class CostMode(StrEnum):
    """How much a conversation may cost."""

    FAST = "fast"
    SMART = "smart"
    MAX = "max"


@dataclass(frozen=True)
class Allowance:
    """What a mode allows; None is no bound but that of the slot's context.

    `session_bytes`: all that a session holds before it rolls over. `uncompacted_turns`: turns that stay as they were
    said. `entry_share`: the part of a session that one tool result may bring in whole.
    """

    session_bytes: int | None
    uncompacted_turns: int | None
    entry_share: float | None


MODES: Mapping[CostMode, Allowance] = MappingProxyType(
    {
        CostMode.FAST: Allowance(session_bytes=500_000, uncompacted_turns=5, entry_share=0.01),
        CostMode.SMART: Allowance(session_bytes=2_000_000, uncompacted_turns=20, entry_share=0.02),
        CostMode.MAX: Allowance(session_bytes=None, uncompacted_turns=None, entry_share=None),
    }
)
DEFAULT_MODE = CostMode.SMART


@dataclass(frozen=True)
class Bounds:
    """Every threshold of a session in a mode on a slot. Bytes are UTF-8, tokens those of the slot's model.

    `session_bytes`, `uncompacted_turns`, `entry_bytes`: None is no bound. `prompt_tokens` and `prompt_bytes`: the most
    that a request may have, whichever is reached first. `compact_to_tokens`: what compaction aims at.
    `result_tokens`: the most of one tool result in a prompt. `message_tokens`, `message_bytes`: the most of any other
    message. `head_tokens`: the most of system, lite parts and schemas.
    `summary_tokens`: the most of all summaries.
    """

    mode: CostMode
    context_tokens: int
    reply_tokens: int
    session_bytes: int | None
    uncompacted_turns: int | None
    entry_bytes: int | None
    prompt_tokens: int
    prompt_bytes: int | None
    compact_to_tokens: int
    result_tokens: int
    message_tokens: int
    message_bytes: int | None
    head_tokens: int
    summary_tokens: int

    def fits(self, tokens: int, size: int = 0) -> bool:
        """Say whether a prompt of so many tokens and bytes may be sent: the tighter bound wins."""
        return tokens <= self.prompt_tokens and (self.prompt_bytes is None or size <= self.prompt_bytes)

    def lite_tokens(self, part: str) -> int:
        """Return how many tokens a part of a lite prompt may have. Raises KeyError for a part that there is not."""
        return int(LITE_SHARES[part] * self.context_tokens)


def bounds(mode: CostMode, context_tokens: int, reply_tokens: int = REPLY_TOKENS) -> Bounds:
    """Return all bounds of a mode on a slot with a context of so many tokens for one request.

    `reply_tokens` is kept free for the answer, but never more than a quarter of what may be used.

    Raises:
        RoostError: the context is too small to hold a prompt at all.
    """
    usable = int(CONTEXT_SHARE * context_tokens)
    reply = min(reply_tokens, int(REPLY_SHARE * usable))
    prompt = usable - reply
    if context_tokens < 1 or prompt < 1:
        raise RoostError(
            f"A context of {context_tokens} tokens holds no conversation.",
            fix="Give the slot a larger context (`roost plan` shows what fits).",
        )
    allowed = MODES[mode]
    size = allowed.session_bytes
    entry = None if size is None or allowed.entry_share is None else int(allowed.entry_share * size)
    return Bounds(
        mode=mode,
        context_tokens=context_tokens,
        reply_tokens=reply,
        session_bytes=size,
        uncompacted_turns=allowed.uncompacted_turns,
        entry_bytes=entry,
        prompt_tokens=prompt,
        prompt_bytes=size,
        compact_to_tokens=int(COMPACT_TO_SHARE * prompt),
        result_tokens=int(RESULT_SHARE * prompt),
        message_tokens=int(MESSAGE_SHARE * prompt),
        message_bytes=None if size is None else int(MESSAGE_SHARE * size),
        head_tokens=min(int(HEAD_SHARE * context_tokens), prompt),
        summary_tokens=int(SUMMARY_SHARE * prompt),
    )
