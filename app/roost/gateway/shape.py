"""How large the parts of a request may be: pure. The model server would take them, and take long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from roost.gateway.errors import ApiError

BASE64_CHARACTERS, BASE64_BYTES = 4, 3


@dataclass(frozen=True)
class ShapeLimits:
    """Messages of a conversation; bytes of an image inside of it; depth and nodes of a JSON schema or tools."""

    messages: int = 4096
    image_bytes: int = 6 << 20
    schema_depth: int = 32
    schema_nodes: int = 10_000


def check_messages(count: int, limits: ShapeLimits, name: str = "messages") -> None:
    """Refuse too many messages, or what else `name` holds.

    Raises:
        ApiError: 400.
    """
    if count > limits.messages:
        raise ApiError(400, f"{name}: there are {count}, at most {limits.messages} are taken.", param=name)


def check_images(contents: Iterable[object], limits: ShapeLimits) -> None:
    """Refuse an image whose data are larger than allowed; `contents` are those of the messages.

    OpenAI's chats and responses have it in `image_url`, Anthropic's messages in `source`.

    Raises:
        ApiError: 400 with the part's place.
    """
    for number, content in enumerate(contents):
        for place, part in enumerate(content if isinstance(content, list) else ()):
            field = "source" if isinstance(part, Mapping) and "source" in part else "image_url"
            image = part.get(field) if isinstance(part, Mapping) else None
            data = (image.get("url") or image.get("data")) if isinstance(image, Mapping) else image
            size = len(data) * BASE64_BYTES // BASE64_CHARACTERS if isinstance(data, str) else 0
            if size > limits.image_bytes:
                where = f"messages.{number}.content.{place}.{field}"
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
