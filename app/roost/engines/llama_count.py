"""Counting a request's prompt with llama-server's own tokeniser and template, and what it takes without heeding it.

Routes and answers as of build 11669: `/v1/chat/completions/input_tokens`, `/v1/responses/input_tokens` and
`/v1/messages/count_tokens` apply the template, tools included, and answer `{"input_tokens": N}`; `/tokenize` takes a
text as a completion's prompt is taken. All of them are answered beside the main loop, while every slot is at work, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

COMPLETIONS = "/v1/completions"
COUNTERS: Mapping[str, str] = {
    "/v1/chat/completions": "/v1/chat/completions/input_tokens",
    "/v1/responses": "/v1/responses/input_tokens",
    "/v1/messages": "/v1/messages/count_tokens",
}
# Seen to change nothing with build 11669, though what they ask for is not what comes.
IGNORED: Mapping[str, frozenset[str]] = {
    "/v1/chat/completions": frozenset({"functions", "function_call", "audio", "web_search_options"}),
    COMPLETIONS: frozenset({"suffix", "echo", "best_of"}),
    "/v1/embeddings": frozenset({"dimensions"}),
    "/v1/responses": frozenset({"background", "conversation", "prompt"}),
}


class Counted(BaseModel):
    """The answer of a counting route."""

    input_tokens: int


class Tokenized(BaseModel):
    """The answer of `/tokenize`."""

    tokens: list[object]


def prompts(body: bytes) -> Iterator[str | int]:
    """Yield each prompt of a completion: a text, or how many tokens it has if it is given as tokens."""
    prompt = from_json(body).get("prompt")
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, list) and all(isinstance(part, int) for part in prompt):
        yield len(prompt)
    elif isinstance(prompt, list):
        for part in prompt:
            if isinstance(part, str):
                yield part
            elif isinstance(part, list):
                yield len(part)


def to_tokenize(text: str) -> bytes:
    """Return the body for `/tokenize` that treats a text as a completion's prompt is treated."""
    return json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()


def read_count(body: bytes) -> int | None:
    """Read the answer of a counting route or of `/tokenize`; None if it is something else."""
    try:
        return Counted.model_validate_json(body).input_tokens
    except ValidationError:
        pass
    try:
        return len(Tokenized.model_validate_json(body).tokens)
    except ValidationError:
        return None
