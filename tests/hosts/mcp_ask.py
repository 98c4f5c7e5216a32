"""Runs on a disposable host with the Python of the installed Roost: call one of its tools as an MCP client does.

Usage: mcp_ask.py TOOL ARGUMENTS, where arguments are JSON. Prints what the tool says.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters


async def main(tool: str, arguments: str) -> None:
    """Call it."""
    program = StdioServerParameters(command="roost", args=["mcp", "serve", "--only", tool], env=dict(os.environ))
    async with Client(program) as client:
        result = await client.call_tool(tool, json.loads(arguments))
        print(*(getattr(part, "text", "") for part in result.content), sep="\n")


asyncio.run(main(*sys.argv[1:]))
