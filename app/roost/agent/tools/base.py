"""What every tool is: a spec for the model, arguments that are checked, and one coroutine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from roost.agent.tool import OUTPUT_LIMIT_BYTES, TIMEOUT_S, Permission, ToolSpec
from roost.agent.tools.errors import RefusedError
from roost.agent.tools.undo_store import Place


class Arguments(BaseModel):
    """Arguments of a tool; what is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Done:
    """What a tool says, and the paths it changed."""

    text: str
    changed: tuple[str, ...] = field(default=())


A = TypeVar("A", bound=Arguments)


@dataclass(frozen=True)
class Tool(Generic[A]):
    """One tool. `act` gets checked arguments, and a place where `needs_place`."""

    spec: ToolSpec
    arguments: type[A]
    act: Callable[[A, Place | None], Awaitable[Done]]
    needs_place: bool = True


AnyTool = Tool[Any]


def in_place(place: Place | None) -> Place:
    """Return the place of a tool that needs one.

    Raises:
        RefusedError: the session has no workspace.
    """
    if place is None:
        raise RefusedError("No workspace is chosen: the user adds one by `roost workspace add PATH`.")
    return place


def spec_of(
    name: str,
    description: str,
    arguments: type[Arguments],
    permission: Permission,
    *,
    timeout_s: float = TIMEOUT_S,
    output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
    safe_to_repeat: bool = False,
) -> ToolSpec:
    """Return a spec whose JSON Schema is that of the arguments, without what a small model need not read."""
    schema = _without_titles(arguments.model_json_schema())
    schema.pop("description", None)
    return ToolSpec(
        name=name, description=description, parameters=schema, permission=permission, timeout_s=timeout_s,
        output_limit_bytes=output_limit_bytes, safe_to_repeat=safe_to_repeat,
    )  # fmt: skip


def _without_titles(schema: dict[str, Any]) -> dict[str, JsonValue]:
    return {
        name: _without_titles(value) if isinstance(value, dict) else value
        for name, value in schema.items()
        if not (name == "title" and isinstance(value, str))
    }
