"""How large the parts of a request may be: pure. The model server would take them, and take long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from roost.gateway.errors import ApiError

BASE64_CHARACTERS, BASE64_BYTES = 4, 3
URL_PART, INSIDE = "_url", "data:"


@dataclass(frozen=True)
class ShapeLimits:
    """Messages of a conversation; bytes of an image inside of it; depth and nodes of a JSON schema or tools."""

    messages: int = 4096
    image_bytes: int = 6 << 20
    schema_depth: int = 32
    schema_nodes: int = 10_000


# What llama-server (build 11669) takes without a bound, and what that cost: a million `n_probs` made 150 MB of answer
# for eight tokens, the largest `repeat_last_n` 8 s and gigabytes, the largest `dry_penalty_last_n` more than 15 s.
LARGEST_NUMBERS: Mapping[str, int] = {
    "n_probs": 100,
    "logprobs": 100,
    "top_logprobs": 100,
    "repeat_last_n": 65_536,
    "dry_penalty_last_n": 65_536,
}
MOST_GRAMMAR_CHARACTERS = 65_536  # five times as many took 7 s


def check_numbers(given: Mapping[str, JsonValue]) -> None:
    """Refuse numbers of the sampler that make the model server's work for a token, or its answer, endless.

    Raises:
        ApiError: 400.
    """
    for name, largest in LARGEST_NUMBERS.items():
        value = given.get(name)
        if isinstance(value, int | float) and value > largest:
            raise ApiError(400, f"{name}: at most {largest} is taken.", param=name)


def check_grammar(grammar: JsonValue) -> None:
    """Refuse a grammar that takes too long to read.

    Raises:
        ApiError: 400.
    """
    if isinstance(grammar, str) and len(grammar) > MOST_GRAMMAR_CHARACTERS:
        raise ApiError(400, f"grammar: at most {MOST_GRAMMAR_CHARACTERS} characters are taken.", param="grammar")


def check_messages(count: int, limits: ShapeLimits, name: str = "messages") -> None:
    """Refuse too many messages, or what else `name` holds.

    Raises:
        ApiError: 400.
    """
    if count > limits.messages:
        raise ApiError(400, f"{name}: there are {count}, at most {limits.messages} are taken.", param=name)


def check_images(contents: Iterable[object], limits: ShapeLimits, name: str = "messages") -> None:
    """Refuse an image (video …) that is larger than allowed, or that is an address.

    Model servers fetch addresses themselves (llama-server http and https), from inside the fleet's network: a key would
    reach what only its machines may reach. `contents` are those of what `name` holds. OpenAI's chats and responses have
    images in `image_url`, Anthropic's messages in `source`, also within the content of a tool's result.

    Raises:
        ApiError: 400 with the part's place.
    """
    for number, content in enumerate(contents):
        _check_parts(f"{name}.{number}.content", content, limits)


def _check_parts(where: str, content: object, limits: ShapeLimits) -> None:
    for place, part in enumerate(content if isinstance(content, list) else ()):
        for name, value in part.items() if isinstance(part, Mapping) else ():
            here = f"{where}.{place}.{name}"
            if name == "content":
                _check_parts(here, value, limits)
            elif name == "source" or name.endswith(URL_PART):
                inner = value if isinstance(value, Mapping) else {"url": value}
                _check_data(here, inner.get("url"), inner.get("data"), limits)


def _check_data(where: str, url: object, data: object, limits: ShapeLimits) -> None:
    if isinstance(url, str) and not url.startswith(INSIDE):
        message = f"{where}: send the data themselves (data:image/png;base64,…); no address is fetched."
        raise ApiError(400, message, param=where)
    longest = max(len(text) if isinstance(text, str) else 0 for text in (url, data))
    if longest * BASE64_BYTES // BASE64_CHARACTERS > limits.image_bytes:
        raise ApiError(400, f"{where}: the image is larger than {limits.image_bytes} bytes.", param=where)


def check_schema(name: str, schema: JsonValue, limits: ShapeLimits) -> None:
    """Refuse a schema that is nested too deep, or has too many parts, for a grammar to be made of it.

    Raises:
        ApiError: 400.
    """
    nodes, level = 0, [schema]
    depth = 0
    while level:
        nodes += len(level)
        depth += 1
        if depth > limits.schema_depth or nodes > limits.schema_nodes:
            raise ApiError(
                400,
                f"{name}: at most {limits.schema_depth} levels and {limits.schema_nodes} parts are taken.",
                param=name,
            )
        level = [inner for value in level for inner in _inside(value)]


def _inside(value: JsonValue) -> Iterable[JsonValue]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
