"""Run by a Python that has LiteLLM, and nothing of ours: `litellm_client.py URL KEY` prints what it got as JSON."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


def main(url: str, key: str) -> dict[str, object]:
    """Ask through LiteLLM as OpenAI's client and as Anthropic's, plain and streamed, and with what must be refused."""
    litellm = import_module("litellm")  # not in our own environment
    refused = import_module("openai").OpenAIError  # what all its errors are

    openai: dict[str, Any] = {"model": "openai/main", "api_base": f"{url}/v1", "api_key": key, "num_retries": 0}
    claude: dict[str, Any] = {"model": "anthropic/main", "api_base": url, "api_key": key, "num_retries": 0}
    common: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    plain = litellm.completion(**openai, **common)
    chunks = list(litellm.completion(**openai, **common, stream=True, stream_options={"include_usage": True}))
    message = litellm.completion(**claude, **common)
    found: dict[str, object] = {
        "plain": plain.choices[0].message.content,
        "tokens": plain.usage.completion_tokens,
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
        "anthropic": message.choices[0].message.content,
        "text": litellm.text_completion(
            **{**openai, "model": "text-completion-openai/main"}, prompt="The capital of France is", max_tokens=3
        )
        .choices[0]
        .text,
    }
    refusals: dict[str, dict[str, Any]] = {
        "too long": {**openai, **common, "max_tokens": 9000},
        "unknown": {**openai, **common, "model": "openai/nobody"},
        "stranger": {**openai, **common, "api_key": "wrong"},
    }
    for name, call in refusals.items():
        try:
            litellm.completion(**call)
        except refused as error:
            found[name] = type(error).__name__
    return found


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
