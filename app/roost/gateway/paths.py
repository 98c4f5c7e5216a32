"""Paths that more than one part must know."""

from __future__ import annotations

CHAT_PATH = "/v1/chat/completions"
RESPONSES_PATH = "/v1/responses"
MESSAGES_PATH = "/v1/messages"


def is_anthropic(path: str) -> bool:
    """Say whether the clients of a path speak Anthropic's protocol."""
    return path == MESSAGES_PATH or path.startswith(f"{MESSAGES_PATH}/")
