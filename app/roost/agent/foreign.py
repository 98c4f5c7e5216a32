"""Which tools of foreign servers (MCP) are put before a model: all of a few, else those that a request is about.

Their schemas stand in every prompt of Router and Specialist; a small model's context has no room for sixty. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from roost.agent.tool import Permission, ToolSpec
from roost.context.topics import words

MOST_FOREIGN = 8


def chosen_foreign(request: str, tools: Sequence[ToolSpec]) -> list[ToolSpec]:
    """Return tools without those of servers that are too many; the order stays, so that prompts begin alike.

    A tool that the request names counts most, then how many of its words the tool's name and description have.
    """
    foreign = [tool for tool in tools if tool.permission is Permission.FOREIGN]
    if len(foreign) <= MOST_FOREIGN:
        return list(tools)
    asked = set(words(request))

    def rank(tool: ToolSpec) -> tuple[bool, int]:
        own = tool.name.replace("__", " ").replace("_", " ")
        return tool.name in request, len(asked & set(words(f"{own} {tool.description}")))

    kept = {tool.name for tool in sorted(foreign, key=rank, reverse=True)[:MOST_FOREIGN]}
    return [tool for tool in tools if tool.permission is not Permission.FOREIGN or tool.name in kept]
