"""A workspace in memory with the tools of a worker: what simulated models work in, the same for both loops."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from roost.agent.tool import OUTPUT_LIMIT_BYTES, Outcome, Permission, ToolCall, ToolResult, ToolSpec


def _spec(name: str, about: str, permission: Permission, needed: Sequence[str], more: Sequence[str] = ()) -> ToolSpec:
    properties: dict[str, JsonValue] = {key: {"type": "string"} for key in (*needed, *more)}
    parameters: dict[str, JsonValue] = {
        "type": "object", "properties": properties, "required": list(needed), "additionalProperties": False,
    }  # fmt: skip
    return ToolSpec(name=name, description=about, parameters=parameters, permission=permission)


TOOLS = (
    _spec("read", "Read a file.", Permission.READ, ["path"]),
    _spec("list", "List a folder.", Permission.READ, ["path"]),
    _spec("search", "Find lines with a pattern.", Permission.READ, ["pattern"], ["path"]),
    _spec("write", "Write a whole file.", Permission.WRITE, ["path", "content"]),
    _spec("edit", "Replace text that occurs once in a file.", Permission.WRITE, ["path", "old", "new"]),
    _spec("shell", "Run a command.", Permission.RUN, ["command"]),
    _spec("web_fetch", "Read a web page.", Permission.NETWORK, ["url"]),
)


class World:
    """Files, pages and commands. A command prints a text, or what a file makes it print: `(path, good, yes, no)`."""

    def __init__(
        self,
        files: Mapping[str, str],
        pages: Mapping[str, str],
        commands: Mapping[str, str | tuple[str, str, str, str]],
    ) -> None:
        self.files = dict(files)
        self.pages = dict(pages)
        self.commands = dict(commands)
        self.ran: list[str] = []
        self.called = 0

    def tools(self) -> Sequence[ToolSpec]:
        """Return the tools."""
        return TOOLS

    async def run(self, call: ToolCall) -> ToolResult:
        """Run a call."""
        self.called += 1
        words = {name: str(value) for name, value in call.arguments.items()}
        try:
            text = getattr(self, f"_{call.name}")(**words)
        except LookupError as error:
            return ToolResult(id=call.id, outcome=Outcome.FAILED, text=str(error.args[0]))
        kept = text.encode()[:OUTPUT_LIMIT_BYTES].decode("utf-8", "ignore")
        changed = (words["path"],) if call.name in {"write", "edit"} else ()
        return ToolResult(id=call.id, outcome=Outcome.OK, text=kept, changed=changed)

    def _read(self, path: str) -> str:
        if path not in self.files:
            raise LookupError(f"There is no file {path}. There are: {', '.join(self.files)}.")
        return self.files[path]

    def _list(self, path: str) -> str:
        inside = [name for name in self.files if path in (".", "") or name.startswith(path.rstrip("/") + "/")]
        return "\n".join(inside)

    def _search(self, pattern: str, path: str = "") -> str:
        found = [
            f"{name}:{number}: {line}"
            for name, text in self.files.items()
            if name.startswith(path)
            for number, line in enumerate(text.splitlines(), 1)
            if re.search(re.escape(pattern), line)
        ]
        return "\n".join(found) or "Nothing found."

    def _write(self, path: str, content: str) -> str:
        self.files[path] = content
        return f"Wrote {len(content)} characters to {path}."

    def _edit(self, path: str, old: str, new: str) -> str:
        text = self._read(path)
        if text.count(old) != 1:
            raise LookupError(f"{old!r} occurs {text.count(old)} times in {path}; it has to occur once.")
        self.files[path] = text.replace(old, new)
        return f"Changed {path}."

    def _shell(self, command: str) -> str:
        said = self.commands.get(command)
        if said is None:
            raise LookupError(f"{command}: command not found")
        self.ran.append(command)
        if isinstance(said, str):
            return said
        path, good, yes, no = said
        if good not in self.files.get(path, ""):
            raise LookupError(no)
        return yes

    def _web_fetch(self, url: str) -> str:
        if url not in self.pages:
            raise LookupError(f"{url} answers 404.")
        return self.pages[url]
