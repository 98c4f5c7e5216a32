"""Whether llama-server goes on with an answer exactly where its text ends, and which model it is. Build 11669.

The server itself shows what it would read: `/apply-template` makes a prompt of a request. If the prompt with the text
so far is the prompt without it plus that text, the model reads what it would have had before it. A template that trims
texts, adds marks, or opens a thought does not pass, and the server refuses some outright.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from roost.engines.llama_count import COMPLETIONS

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
TEMPLATE = "/apply-template"
DIGEST = re.compile(r"[0-9a-f]{16}")  # how a folder of the store is called


class _Prompt(BaseModel):
    prompt: str


def as_chat(path: str, body: bytes) -> bytes | None:
    """Return a request as a chat whose prompt is the same, or None where that is not simple."""
    if path == CHAT:
        return body
    if path != MESSAGES:
        return None
    document = from_json(body)
    messages = document["messages"]
    if system := document.get("system"):
        messages = [{"role": "system", "content": system}, *messages]
    flags = {name: document[name] for name in ("add_generation_prompt", "continue_final_message") if name in document}
    return json.dumps({"messages": messages, **flags}).encode()


def read_prompt(body: bytes) -> str | None:
    """Read the answer of `/apply-template`; None if it is something else."""
    try:
        return _Prompt.model_validate_json(body).prompt
    except ValidationError:
        return None


def differs(before: str | None, after: str | None, text: str) -> str:
    """Say why an answer cannot go on, given the prompts without and with its text so far; or nothing."""
    if before is None or after is None:
        return "the model server does not show how it would go on"
    if after != before + text:
        return "the model's template does not go on where the text ends"
    return ""


def needs_template(path: str) -> bool:
    """Say whether a request's prompt is made by a template; a completion's is its text."""
    return path != COMPLETIONS


def fingerprint(meta: Mapping[str, Any], path: str, template: str, host: str) -> str:
    """Return what two servers of the same model file and template have in common; nothing where too little is known.

    `meta` is the model's in `/v1/models`: parameters, bytes, kind of quantisation and vocabulary. A file of the fleet
    lies in a folder that is called by its SHA-256 (`roost.models.store`), and is the same on every host. Of any other
    nothing tells its content: two fine-tunes of one model agree in all else. It is the same only for the same path on
    the same `host`.
    """
    size, parameters = meta.get("size"), meta.get("n_params")
    if not size or not parameters:
        return ""
    digest = PurePath(path).parent.name
    file = [digest] if DIGEST.fullmatch(digest) else [path, host]
    parts = [file, PurePath(path).name, parameters, size, meta.get("ftype"), meta.get("n_vocab"), template]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
