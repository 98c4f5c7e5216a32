"""The tools that are put before a model: those it may use, and of foreign servers' (MCP) not more than it can read.

One function for the Specialist of a turn, for helpers and for jobs. Schemas stand in every prompt of Router and
Specialist; a small model's context has no room for sixty. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from roost.agent.tool import Permission, ToolSpec
from roost.context.topics import words

MOST_FOREIGN = 8
PREFIX = "mcp__"
"""Names of foreign tools begin with it, and no others."""
ALL = frozenset(Permission)


def is_foreign(name: str) -> bool:
    """Say whether a tool's name is that of a foreign server's."""
    return name.startswith(PREFIX)


def tool_set(request: str, tools: Sequence[ToolSpec], may: Collection[Permission] = ALL) -> list[ToolSpec]:
    """Return the tools of a request: those of permissions that it `may` have, foreign ones not too many.

    Of foreign ones that are too many those stay that the request names, then those whose name and description have
    most of its words. The order stays, so that prompts begin alike.
    """
    allowed = [tool for tool in tools if tool.permission in may]
    foreign = [tool for tool in allowed if tool.permission is Permission.FOREIGN]
    if len(foreign) <= MOST_FOREIGN:
        return allowed
    asked = set(words(request))

    def rank(tool: ToolSpec) -> tuple[bool, int]:
        own = tool.name.replace("__", " ").replace("_", " ")
        return tool.name in request, len(asked & set(words(f"{own} {tool.description}")))

    kept = {tool.name for tool in sorted(foreign, key=rank, reverse=True)[:MOST_FOREIGN]}
    return [tool for tool in allowed if tool.permission is not Permission.FOREIGN or tool.name in kept]
