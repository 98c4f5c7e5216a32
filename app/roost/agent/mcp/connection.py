"""One server that runs: connected, its tools listed, started anew when it is gone, asked to do something."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import anyio
import mcp_types as types
import structlog
from mcp.client import Client
from mcp.client.session import IncomingMessage
from mcp.shared.exceptions import MCPError
from pydantic import JsonValue, ValidationError

from roost import __version__
from roost.agent.mcp.process import Ended
from roost.agent.mcp.schema import MOST_DESCRIPTION, Schema, one_line, reduced
from roost.agent.tools.errors import CutOffError, RefusedError, ToolError

log = structlog.get_logger(__name__)

START_S = 30.0
"""How long a server may take until its tools are known: some are fetched when they are first started."""
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
CANCEL_S = 2.0
STEADY_S = 60.0
"""A server that ran for so long is started anew at once when it ends."""
MODES: Sequence[Literal["legacy", "auto"]] = ("legacy", "auto")
"""How to begin: by `initialize`, which all servers of before 2026-07-28 know and which lets them say that their tools
changed; else as the package thinks best, for servers that know only what came after."""
MOST_PAGES = 8
MOST_TOOLS = 64
MOST_NAME_GIVEN = 512
"""Characters of a name: a tool with a longer one is left out."""
LISTED_AGAIN_S = 5.0
MOST_REASON = 300
BROKEN = (MCPError, ValidationError, ToolError, RefusedError, OSError, TimeoutError, RuntimeError, ValueError,
          anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)  # fmt: skip
T = TypeVar("T")
Streams = Any  # what the package takes as a transport
Open = Callable[[Ended], AbstractAsyncContextManager[Streams]]


@dataclass(frozen=True)
class Listed:
    """A tool as its server lists it; `schema` is what is left of that of its arguments, None where nothing can be."""

    name: str
    description: str
    schema: Schema | None
    read_only: bool = False
    idempotent: bool = False
    """What the server says of it (`readOnlyHint`, `idempotentHint`): believed as far as `permission/policy` does."""


def listed_of(tools: Sequence[types.Tool]) -> list[Listed]:
    """Return tools with what of their words may stand before a model."""
    return [
        Listed(
            tool.name,
            one_line(tool.description or "", MOST_DESCRIPTION),
            reduced(tool.input_schema),
            read_only=bool(tool.annotations and tool.annotations.read_only_hint),
            idempotent=bool(tool.annotations and tool.annotations.idempotent_hint),
        )
        for tool in tools
        if len(tool.name) <= MOST_NAME_GIVEN
    ]


@dataclass
class Connection:
    """Keeps one server running. `open` starts it and gives its two streams; `changed` hears that its tools did."""

    name: str
    open: Open
    changed: Callable[[], None] = lambda: None
    tools: Sequence[Listed] = ()
    server: str = ""
    problem: str = "it is being started"
    _client: Client | None = None
    _ended: Ended = field(default_factory=Ended)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ready(self) -> bool:
        """Say whether it can be asked."""
        return self._client is not None

    async def run(self) -> None:
        """Keep it running until this is cancelled; then all of it is ended."""
        waits = FIRST_RETRY_S
        modes = MODES
        while True:
            loop = asyncio.get_running_loop()
            began = loop.time()
            self._ended = Ended()
            try:
                async with self._connected(modes[0]):
                    await self._kept()
                self._lost("it ended")
            except (*BROKEN, BaseExceptionGroup) as error:
                self._lost(_reason(error))
                modes = modes[::-1]
            except Exception as error:  # whatever it is: its tools would stay on offer, and nobody would start it anew
                log.exception("mcp_server_failed", server=self.name)
                self._lost(_reason(error))
            if loop.time() - began > STEADY_S:
                waits = FIRST_RETRY_S
            await asyncio.sleep(waits)
            waits = min(waits * 2, LONGEST_RETRY_S)

    async def once(self) -> None:
        """Connect, list the tools, and end it again.

        Raises:
            ToolError: it does not answer as a server does.
        """
        problem = ""
        for mode in MODES:
            self._ended = Ended()
            try:
                async with self._connected(mode):
                    return
            except (*BROKEN, BaseExceptionGroup) as error:
                problem = problem or self._whole(_reason(error))
        raise ToolError(problem)

    async def call(self, tool: str, arguments: Mapping[str, JsonValue]) -> str:
        """Have a tool run; return what it says as text.

        Raises:
            RefusedError: the server is not there: nothing was done.
            ToolError: it says that it did not work.
            CutOffError: the server was lost meanwhile: it may have been done.
        """
        if self._client is None or self._ended.event.is_set():
            raise RefusedError(f"The MCP server {self.name} is not there: {self.problem or self._ended.why}.")
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=tool, arguments=dict(arguments)))
        try:
            # not call_tool(): it checks results with schemas that the server sent, whose patterns may take for ever
            result = await self._unless_lost(self._client.session.send_request(request, types.CallToolResult))
        except MCPError as error:
            if error.error.code == types.CONNECTION_CLOSED or self._ended.event.is_set():
                raise CutOffError(f"The MCP server {self.name} was lost: {self._why('it ended')}.") from None
            raise ToolError(f"{self.name}: {one_line(error.error.message, MOST_REASON)}") from None
        except ValidationError:
            raise ToolError(f"What {self.name} answered is no result of a tool.") from None
        except (OSError, RuntimeError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            self._ended.end(_reason(error))
            raise CutOffError(f"The MCP server {self.name} was lost: {_reason(error)}.") from None
        text = text_of(result)
        if result.is_error:
            raise ToolError(text)
        return text

    async def _unless_lost(self, asked: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer as long as the server is there: the package does not end who waits when it goes.

        Raises:
            CutOffError: it went.
        """
        ended = self._ended
        answer, gone = asyncio.ensure_future(asked), asyncio.ensure_future(ended.event.wait())
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise CutOffError(f"The MCP server {self.name} was lost: {ended.why}.")
            return answer.result()
        finally:
            gone.cancel()
            if not answer.done():
                answer.cancel()  # tells the server, if it is there
                await asyncio.wait({answer}, timeout=CANCEL_S)

    @asynccontextmanager
    async def _connected(self, mode: Literal["legacy", "auto"]) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(START_S):
                me = types.Implementation(name="roost", version=__version__)
                made = Client(
                    self.open(self._ended), mode=mode, cache=None, message_handler=self._hear, client_info=me
                )  # fmt: skip
                client = await stack.enter_async_context(made)
                about = client.server_info
                self.server = one_line(f"{about.name} {about.version}", 80) if about else ""
                self.tools = await self._list(client)
            self._client, self.problem = client, ""
            self.changed()
            try:
                yield
            finally:
                self._client, self.problem = None, "it was ended"
                self._ended.end("it ended")

    async def _kept(self) -> None:
        """Wait until it is gone; list its tools again when it says that they changed."""
        gone = asyncio.create_task(self._ended.event.wait())
        try:
            while not gone.done():
                news = asyncio.create_task(self._news.wait())
                try:
                    await asyncio.wait({gone, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                if self._news.is_set() and self._client and not gone.done():
                    self._news.clear()
                    async with asyncio.timeout(START_S):
                        self.tools = await self._list(self._client)
                    self.changed()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.shield(gone), LISTED_AGAIN_S)
        finally:
            gone.cancel()

    async def _list(self, client: Client) -> list[Listed]:
        found: list[Listed] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = await client.session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
            # once for each listing, and where it holds nothing up: strangers wrote it
            found += await asyncio.to_thread(listed_of, page.tools[: MOST_TOOLS - len(found)])
            cursor = page.next_cursor
            if not cursor or len(found) >= MOST_TOOLS:
                break
        return found

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._news.set()

    def _lost(self, reason: str) -> None:
        self._client, self.tools, self.problem = None, (), self._why(reason)
        self._news.clear()
        log.info("mcp_server_lost", server=self.name, reason=self._whole(reason))
        self.changed()

    def _why(self, reason: str) -> str:
        """Return why it is gone: what was seen of it, else what went wrong here."""
        return self._ended.why if self._ended.why not in {"", "it ended"} else reason

    def _whole(self, reason: str) -> str:
        """Return that with the end of what it wrote as errors: for whoever runs it, and never for a model."""
        said = one_line(bytes(self._ended.tail).decode(errors="replace"), MOST_REASON)
        return f"{self._why(reason)}; it says: {said}" if said else self._why(reason)


def _reason(error: BaseException) -> str:
    """Return what went wrong, from below the groups that tasks come in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"it did not answer within {START_S:.0f} s"
    if isinstance(error, FileNotFoundError):
        return f"there is no program {error.filename}"
    if isinstance(error, ValidationError):
        return "what it answers is not as the protocol says"
    return one_line(str(error), MOST_REASON) or type(error).__name__


def text_of(result: types.CallToolResult) -> str:
    """Return what a tool said, as text; of what is none its kind and size."""
    parts: list[str] = []
    for block in result.content:
        match block:
            case types.TextContent():
                parts.append(block.text)
            case types.ImageContent() | types.AudioContent():
                parts.append(f"[{block.type}, {one_line(block.mime_type, 60)}, {_size(block.data):,} bytes: not shown]")
            case types.ResourceLink():
                parts.append(f"[{one_line(block.name, 120)}: {one_line(str(block.uri), 300)}]")
            case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
                parts.append(resource.text)
            case types.EmbeddedResource():
                parts.append(f"[{one_line(str(block.resource.uri), 300)}: not text, not shown]")
    if not parts and result.structured_content is not None:
        parts.append(str(result.model_dump_json(include={"structured_content"}, indent=1)))
    return "\n".join(parts) or "(it said nothing)"


def _size(data: str) -> int:
    with suppress(ValueError):
        return len(base64.b64decode(data, validate=False))
    return len(data)
