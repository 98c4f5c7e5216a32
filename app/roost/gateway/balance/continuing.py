"""How an answer that was being streamed goes on at another model server from the text so far. Pure.

Only plain text can: what a grammar, a tool call, reasoning or a choice of several answers has in progress is not in the
text. The other server gets the request again with the text so far as the beginning of the assistant's answer
(`continue_final_message`, as llama-server, build 11669, and vLLM have it), and a limit that is lowered by what was
written. Text that a stop sequence might begin with is held back by the model server, so that none is cut in two.

What cannot be the same: with a temperature above 0 the rest is drawn anew, whatever the seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from roost.gateway.request.kinds import CHAT, COMPLETIONS, MESSAGES, Kind

Json = dict[str, Any]
DATA = b"data: "
DONE = b"[DONE]"
KEPT_BYTES = 4 << 10  # of events that were not read yet; they take several times the memory of their text
OF_THE_STREAM = ("id", "created", "model", "system_fingerprint")
CONTINUED = (CHAT, COMPLETIONS, MESSAGES)
LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")
# Fields that make an answer more than its text, unless they have the values by which they ask for nothing.
MORE_THAN_TEXT: Mapping[str, tuple[object, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "grammar": (None, ""),
    "json_schema": (None, {}),
    "logprobs": (None, False, 0),
    "top_logprobs": (None, 0),
    "n_probs": (None, 0),
    "n": (None, 1),
    "n_cmpl": (None, 1),
    "best_of": (None, 1),
    "echo": (None, False),
    "mirostat": (None, 0),
    "id_slot": (None, -1),
    "return_tokens": (None, False),
    "timings_per_token": (None, False),
    "return_progress": (None, False),
}
NO_PART = "it holds an event that is no part of an answer"
TEXT_FORMATS: tuple[object, ...] = (None, {}, {"type": "text"})


def why_not(kind: Kind, document: Mapping[str, Any]) -> str:
    """Say what in a request keeps its answer from going on elsewhere, or nothing."""
    if kind not in CONTINUED:
        return f"{kind.path} cannot be continued"
    for name, nothing in MORE_THAN_TEXT.items():
        value = document.get(name)
        if not any(value == least and isinstance(value, bool) == isinstance(least, bool) for least in nothing):
            return f"{name} was asked for"
    if document.get("response_format") not in TEXT_FORMATS:
        return "response_format was asked for"
    if kind is COMPLETIONS:
        return "" if isinstance(document.get("prompt"), str) else "the prompt is no text"
    last = document["messages"][-1]
    if last.get("role") == "assistant" and not isinstance(last.get("content"), str):
        return "the last message is an assistant's and no text"
    return ""


def continued(kind: Kind, document: Mapping[str, Any], text: str, written: int) -> Json:
    """Return the request that goes on after `text`, of which the model wrote `written` tokens."""
    found = dict(document)
    for name in LIMITS:
        if isinstance(found.get(name), int) and found[name] > 0:
            found[name] = max(1, found[name] - written)
    if kind is COMPLETIONS:
        found["prompt"] += text
        return found
    messages = list(found["messages"])
    if messages[-1].get("role") == "assistant":
        messages[-1] = {**messages[-1], "content": messages[-1]["content"] + text}
    else:
        messages.append({"role": "assistant", "content": text})
    return found | {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}


def events_of(data: bytes) -> Iterator[tuple[bytes, Json | None]]:
    """Yield each event of a stream's whole events with its document; None for `[DONE]` and what is no JSON."""
    for event in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line.removeprefix(DATA) for line in event.split(b"\n") if line.startswith(DATA)]
        if not lines:
            continue
        try:
            document = from_json(lines[-1])
        except ValueError:
            document = None
        yield event, document if isinstance(document, dict) else None


@dataclass
class Transcript:
    """What of a streamed answer its client has. `more` says why it is more than text; `finished`: nothing is missing.

    Events are read in batches, so that a stream costs little while nothing happens to it.
    """

    kind: Kind
    more: str = ""
    finished: bool = False
    first: Json = field(default_factory=dict)  # its first event, by whose names the rest goes on
    block: bool = False  # Anthropic: the text's block has begun
    _text: list[str] = field(default_factory=list)
    _unread: list[bytes] = field(default_factory=list)
    _size: int = 0

    def keep(self, data: bytes) -> None:
        """Take whole events that went to the client."""
        if self.more:
            return
        self._unread.append(data)
        self._size += len(data)
        if self._size > KEPT_BYTES:
            self._read()

    def text(self) -> str:
        """Return the text so far."""
        self._read()
        return self._text[0]

    def _read(self) -> None:
        unread, self._unread, self._size = b"".join(self._unread), [], 0
        read = self._message if self.kind is MESSAGES else self._chunk
        for _, document in events_of(unread):
            if document is not None and not self.more:
                read(document)
        self._text = ["".join(self._text)]

    def _chunk(self, document: Json) -> None:
        self.first = self.first or document
        choices = document.get("choices")
        if not isinstance(choices, list) or not all(map(_is_choice, choices)):
            self.more = NO_PART
            return
        for choice in choices:
            said = dict(choice.get("delta") or {"content": choice.get("text")})
            said.pop("role", None)
            self._take(said.pop("content", None))
            if choice.get("index") or choice.get("logprobs"):
                self.more = "it has more than one answer" if choice.get("index") else "it has logprobs"
            if other := next((name for name, value in said.items() if value), ""):
                self.more = f"{other} has begun"
            self.finished = self.finished or bool(choice.get("finish_reason"))

    def _message(self, document: Json) -> None:
        self.first = self.first or document
        kind = document.get("type")
        part, delta = (document.get(name) or {} for name in ("content_block", "delta"))
        if not (isinstance(part, dict) and isinstance(delta, dict)):
            self.more = NO_PART
        elif kind == "content_block_start":
            if part.get("type") != "text" or self.block:
                self.more = f"{part.get('type')} has begun"
            self.block = True
            self._take(part.get("text"))
        elif kind == "content_block_delta":
            if delta.get("type") != "text_delta":
                self.more = f"{delta.get('type')} has begun"
            self._take(delta.get("text"))
        elif kind in ("content_block_stop", "message_delta", "message_stop"):
            self.finished = True
        elif kind not in ("message_start", "ping"):
            self.more = NO_PART

    def _take(self, text: object) -> None:
        if isinstance(text, str):
            self._text.append(text)
        elif text is not None:
            self.more = "its content is no text"


@dataclass(frozen=True)
class Splice:
    """Makes the events of another server's continuation those of the stream that a client has begun to read.

    `prompt` are the tokens of the client's prompt, `written` those of the text so far, both as the other server counts
    them: sums are the client's, not what both servers had to do. `prompt` None: there was no text yet.
    """

    kind: Kind
    first: Json
    block: bool
    prompt: int | None
    written: int

    def events(self, data: bytes) -> bytes:
        """Return whole events of the continuation as the client gets them."""
        found = []
        for event, document in events_of(data):
            if document is None:
                found.append(event + b"\n\n")
            elif self.kind is MESSAGES:
                found.append(self._message(event, document))
            else:
                found.append(self._chunk(document))
        return b"".join(found)

    def _chunk(self, document: Json) -> bytes:
        if "error" in document:
            return _data(document)
        choices = document.get("choices") or []
        if not isinstance(choices, list) or not all(map(_is_choice, choices)):
            return _data(document)
        begins = any("role" in (choice.get("delta") or {}) for choice in choices)
        if self.first and begins:  # such an event says nothing else
            if not any(choice["delta"].get("content") for choice in choices):
                return b""
            for choice in choices:
                choice["delta"].pop("role", None)
        document |= {name: self.first[name] for name in OF_THE_STREAM if name in self.first}
        if self.prompt is not None:
            if isinstance(usage := document.get("usage"), dict):
                usage |= _usage(usage, self.prompt, self.written)
            if isinstance(timings := document.get("timings"), dict):
                cached = min(_count(timings.get("cache_n")), self.prompt)
                timings |= {"cache_n": cached, "prompt_n": self.prompt - cached}
                timings["predicted_n"] = _count(timings.get("predicted_n")) + self.written
        return _data(document)

    def _message(self, event: bytes, document: Json) -> bytes:
        kind = document.get("type")
        if (kind == "message_start" and self.first) or (kind == "content_block_start" and self.block):
            return b""
        if kind == "message_delta" and isinstance(usage := document.get("usage"), dict):
            usage["output_tokens"] = _count(usage.get("output_tokens")) + self.written
            return b"event: message_delta\n" + _data(document)
        return event + b"\n\n"


def _is_choice(choice: object) -> bool:
    """Say whether a server's choice has the form that one has: what a server says is not to be trusted."""
    return isinstance(choice, dict) and isinstance(choice.get("delta") or {}, dict)


def _count(value: object) -> int:
    """Return a number of tokens as a server says it; 0 for what is none."""
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0


def _usage(usage: Json, prompt: int, written: int) -> Json:
    completion = _count(usage.get("completion_tokens")) + written
    found: Json = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    if isinstance(details := usage.get("prompt_tokens_details"), dict):
        cached = min(_count(details.get("cached_tokens")), prompt)
        found["prompt_tokens_details"] = {**details, "cached_tokens": cached}
    return found


def closing(kind: Kind, document: Mapping[str, Any]) -> bytes | None:
    """Return what ends a stream whose answer is complete, or None where only the lost server could have said it."""
    options = document.get("stream_options")
    if kind is MESSAGES or (isinstance(options, dict) and options.get("include_usage")):
        return None
    return DATA + DONE + b"\n\n"


def _data(document: Json) -> bytes:
    return DATA + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
