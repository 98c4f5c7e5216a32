"""The MCP servers that a user named, in one file; each is for a key of a hub, as workspaces are."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from roost.agent.tool import TIMEOUT_S
from roost.ops.errors import NOT_FOUND, RoostError
from roost.ops.file_lock import locked
from roost.ops.files import write_atomic

NAME = re.compile(r"[a-z][a-z0-9-]{0,23}")
NAMED = "small letters, digits and -, beginning with a letter, 24 at most"
FORM = "`roost mcp add NAME -- PROGRAM ARGS` or `roost mcp add NAME --url URL`; see `roost mcp add --help`."
MOST_SERVERS = 16
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HEADER = re.compile(r"[A-Za-z0-9-]+")
Text = Annotated[str, Field(max_length=8192)]
WRONG = {
    "string_pattern_mismatch": f"it is made of {NAMED}",
    "missing": "it is missing",
    "extra_forbidden": "it is not known",
    "string_type": "it is no text",
    "string_too_long": "it is longer than {max_length} characters",
    "too_long": "there are more than {max_length}",
    "tuple_type": "it is no list",
    "list_type": "it is no list",
    "dict_type": "it is no table of names and values",
    "model_type": "it is no table of names and values",
    "bool_type": "it is neither true nor false",
    "bool_parsing": "it is neither true nor false",
    "float_type": "it is no number",
    "float_parsing": "it is no number",
    "greater_than": "it is not more than {gt}",
    "less_than_equal": "it is more than {le}",
    "json_invalid": "it is no JSON ({error})",
    "value_error": "{error}",
}
"""What pydantic's types of errors are in plain words; the braces are what its `ctx` says."""


class McpServer(BaseModel):
    """A server: a program (`command`) that speaks over its input and output, or an address (`url`).

    `sandbox`: the program sees /usr, `read` and one folder only, and no network unless `network`. That folder is
    `workspace`, which it may change if `writable`, or one of its own. `environment` and `headers` may hold secrets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=rf"^{NAME.pattern}$")
    owner: str
    hub: str = ""
    command: tuple[Text, ...] = Field(default=(), max_length=256)
    environment: dict[str, Text] = Field(default_factory=dict, repr=False)
    sandbox: bool = True
    network: bool = False
    read: tuple[str, ...] = Field(default=(), max_length=32)
    workspace: str = ""
    writable: bool = False
    url: str = ""
    headers: dict[str, Text] = Field(default_factory=dict, repr=False)
    timeout_s: float = Field(default=TIMEOUT_S, gt=0, le=600)

    @model_validator(mode="after")
    def _is_one_of_two(self) -> McpServer:
        if bool(self.command) == bool(self.url):
            has = "both" if self.url else "neither"
            raise ValueError(f"it has {has} a program {'and' if self.url else 'nor'} an address")
        if any("\0" in word for word in (*self.command, *self.environment.values(), *self.read)):
            raise ValueError("a NUL is in it")
        if bad := [name for name in self.environment if not VARIABLE.fullmatch(name)]:
            raise ValueError(f"{bad[0]!r} is no name of a variable")
        if bad := [name for name in self.headers if not HEADER.fullmatch(name)]:
            raise ValueError(f"{bad[0]!r} is no name of a header")
        if any(not value.isprintable() for value in self.headers.values()):
            raise ValueError("a header holds what none may")
        if bad := [path for path in self.read if not Path(path).is_absolute()]:
            raise ValueError(f"{bad[0]!r} is no absolute path")
        if self.url and (why := unfit_url(self.url)):
            raise ValueError(why)
        return self

    @property
    def keeps_to_itself(self) -> bool:
        """Say whether it can pass on nothing that it is given: a program in the sandbox without a network."""
        return bool(self.command) and self.sandbox and not self.network

    def shown(self) -> dict[str, object]:
        """Return it for people: of what may be secret the names only."""
        document = self.model_dump(mode="json", exclude_defaults=True)
        for secret in ("environment", "headers"):
            if secret in document:
                document[secret] = sorted(document[secret])
        return document


def unfit_url(url: str) -> str:
    """Say why an address is none for a server; '' if it is fine. Beyond this machine only https is spoken."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return f"{url!r} is no address"
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.password:
        return f"{url!r} is no address of a server, which begins with https:// and has no name or password in it"
    if parts.scheme == "http" and not _here(host):
        return f"{url} is on another machine and not encrypted"
    return ""


def _here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


SERVERS: TypeAdapter[list[McpServer]] = TypeAdapter(list[McpServer])


class McpServers:
    """The list of one hub."""

    def __init__(self, file: Path, hub: str = "") -> None:
        self._file = file
        self._hub = hub

    def of(self, owner: str) -> list[McpServer]:
        """Return a key's servers by name."""
        return sorted((s for s in self._load() if (s.owner, s.hub) == (owner, self._hub)), key=lambda s: s.name)

    def all(self) -> list[McpServer]:
        """Return those of all keys and hubs, by owner and name."""
        return sorted(self._load(), key=lambda s: (s.owner, s.name))

    def add(self, added: Sequence[McpServer]) -> None:
        """Name servers; nothing changes where the same are there already, and nothing of them where one cannot be.

        Raises:
            RoostError: a name is taken, or there are too many.
        """
        with locked(self._file):
            found = self._load()
            for one in added:
                mine = [s for s in found if (s.owner, s.hub) == (one.owner, one.hub)]
                if one in mine:
                    continue
                if any(s.name == one.name for s in mine):
                    raise RoostError(
                        f"There is another MCP server {one.name}.", fix=f"roost mcp remove {one.name}", exit_code=2
                    )
                if len(mine) >= MOST_SERVERS:
                    raise RoostError(f"There are {MOST_SERVERS} already.", fix="roost mcp remove NAME", exit_code=2)
                found.append(one)
            self._save(found)

    def remove(self, owner: str, name: str) -> McpServer:
        """Take one off the list.

        Raises:
            RoostError: this key has none of that name.
        """
        with locked(self._file):
            found = self._load()
            gone = next((s for s in found if (s.owner, s.hub, s.name) == (owner, self._hub, name)), None)
            if gone is None:
                raise RoostError(f"There is no MCP server {name}.", fix="roost mcp list", exit_code=NOT_FOUND)
            self._save([s for s in found if s != gone])
        return gone

    def pass_on(self, owner: str, before: str) -> None:
        """Give this hub what a key had at `before`."""
        with locked(self._file):
            found = self._load()
            theirs = [s for s in found if (s.owner, s.hub) == (owner, before)]
            if theirs and before != self._hub:
                self._save([s.model_copy(update={"hub": self._hub}) if s in theirs else s for s in found])

    def _load(self) -> list[McpServer]:
        try:
            return SERVERS.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return []
        except ValidationError as error:
            raise RoostError(f"{self._file} cannot be read: {said(error)}.", fix=f"Correct {self._file}.") from None

    def _save(self, found: Sequence[McpServer]) -> None:
        text = json.dumps([s.model_dump(mode="json", exclude_defaults=True) for s in found], indent=1)
        write_atomic(self._file, f"{text}\n", mode=0o600)


def made(values: Mapping[str, object]) -> McpServer:
    """Return a server of these fields.

    Raises:
        RoostError: there is none such.
    """
    name = str(values.get("name", ""))
    if not name:
        raise RoostError("An MCP server needs a name.", fix=FORM, exit_code=2)
    if not NAME.fullmatch(name):
        raise RoostError(f"{name!r} is no name of an MCP server: it is made of {NAMED}.", fix=FORM, exit_code=2)
    try:
        return McpServer.model_validate(dict(values))
    except ValidationError as error:
        raise RoostError(f"{name}: {said(error)}.", fix=FORM, exit_code=2) from None


def said(error: ValidationError) -> str:
    """Return what is wrong in plain words, without the values: they may be secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = WRONG.get(first["type"], "it is not of the right kind").format(**first.get("ctx", {}))
    return f"{where}: {what}" if where else what


def imported(text: str, common: Mapping[str, object]) -> list[tuple[str, McpServer]]:
    """Return the servers of a document as other clients keep them, each after its name there.

    `common` is what all of them get.

    `{"mcpServers": {NAME: {"command": ..., "args": [...], "env": {...}} or {"url": ..., "headers": {...}}}}`.

    Raises:
        RoostError: it is none, or one of them cannot be.
    """
    wrong = 'Its form is {"mcpServers": {"NAME": {"command": "…", "args": ["…"]}}}.'
    try:
        document: Any = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise RoostError(f"It is no JSON ({error.msg}: {where}).", fix=wrong, exit_code=2) from None
    except (ValueError, RecursionError):
        raise RoostError("It is no JSON that can be read.", fix=wrong, exit_code=2) from None
    try:
        entries: Any = document["mcpServers"]
        found = [(str(name), dict(entry)) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RoostError("It holds no MCP servers.", fix=wrong, exit_code=2) from None
    servers = []
    for name, entry in found:
        args = entry.get("args", [])
        if not NAME.fullmatch(name_of(name)):
            raise RoostError(f"{name!r} in it gives no name of {NAMED}.", fix="Name it so in the file.", exit_code=2)
        values: dict[str, object] = {**common, "name": name_of(name)}
        if "url" in entry:
            values |= {"url": entry["url"], "headers": entry.get("headers", {})}
        elif isinstance(entry.get("command"), str) and isinstance(args, list):
            values |= {"command": [entry["command"], *args], "environment": entry.get("env", {})}
        else:
            raise RoostError(f"{name} has neither a command nor a url.", fix=wrong, exit_code=2)
        servers.append((name, made(values)))
    return servers


def name_of(name: str) -> str:
    """Return a name as ours are: of a-z, 0-9 and -."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24].strip("-")
