"""Conversations of `roost chat`, kept as one JSON file each in the user's state folder."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from roost.ops.files import write_atomic


@dataclass
class Conversation:
    """Messages so far, the system message first."""

    id: str
    messages: list[dict[str, str]]

    @classmethod
    def begin(cls, system: str) -> Conversation:
        """Return an empty conversation; its id sorts by time."""
        messages = [{"role": "system", "content": system}] if system else []
        return cls(f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}", messages)

    @property
    def system(self) -> str:
        """Return the system message."""
        return self.messages[0]["content"] if self.messages and self.messages[0]["role"] == "system" else ""


@dataclass(frozen=True)
class Shelf:
    """The folder of a user's conversations."""

    folder: Path

    @classmethod
    def of_user(cls) -> Shelf:
        """Return the folder below `$XDG_STATE_HOME`, else `~/.local/state`."""
        state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        return cls(Path(state) / "roost" / "chat")

    def keep(self, talk: Conversation) -> None:
        """Write a conversation, readable by its user only; where that fails, say so and go on."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            content = json.dumps({"id": talk.id, "messages": talk.messages}, ensure_ascii=False, indent=1)
            write_atomic(self.folder / f"{talk.id}.json", content + "\n", mode=0o600)
        except OSError as error:
            sys.stderr.write(f"(The conversation is not kept: {error}.)\n")

    def last(self) -> Conversation | None:
        """Return the conversation that was kept last, or None; files that cannot be read are passed over."""
        try:
            files = sorted(self.folder.glob("*.json"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
        except OSError:
            return None
        for file in files:
            try:
                content = json.loads(file.read_text())
                messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in content["messages"]]
                return Conversation(str(content["id"]), messages)
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None
