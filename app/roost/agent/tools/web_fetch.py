"""`web_fetch`: a page as readable text. Size, time, addresses and redirects are bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import aiohttp
from pydantic import Field
from yarl import URL

from roost.agent.tool import Permission
from roost.agent.tools.addresses import CheckedResolver, Lookup, check_url, system_lookup
from roost.agent.tools.base import Arguments, Done, Tool, spec_of
from roost.agent.tools.errors import RefusedError, ToolError
from roost.agent.tools.undo_store import Place

PAGE_BYTES = 4 << 20
REDIRECTS = 5
TIMEOUT_S = 30.0
REDIRECTED = frozenset({301, 302, 303, 307, 308})
AGENT = "roost-agent"


class FetchArguments(Arguments):
    """Which page."""

    url: str = Field(max_length=4096, description="http or https address.")


async def fetched(url: str, allowed: Collection[str], lookup: Lookup = system_lookup) -> tuple[str, str, bytes]:
    """Return the address after redirects, the media type and the bytes of a page.

    Raises:
        ToolError: it could not be had.
        RefusedError: it, or where it leads to, is not allowed.
    """
    connector = aiohttp.TCPConnector(resolver=CheckedResolver(allowed, lookup), use_dns_cache=False)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S - 5)
    # trust_env stays off: a proxy would look names up itself
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers={"User-Agent": AGENT}) as http:
        for _ in range(REDIRECTS + 1):
            target = check_url(url, allowed)
            try:
                async with http.get(target, allow_redirects=False) as answer:
                    if answer.status in REDIRECTED and "Location" in answer.headers:
                        url = str(target.join(URL(answer.headers["Location"])))
                        continue
                    if answer.status >= 400:
                        raise ToolError(f"{url} answered {answer.status} {answer.reason}.")
                    return url, answer.content_type, await _body(answer)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _told(url, error) from error
    raise ToolError(f"{url} redirects more than {REDIRECTS} times.")


def readable(body: bytes, media_type: str, url: str) -> str:
    """Return a page's text: the article of an HTML page, the rest as it is.

    Raises:
        ToolError: it is no text.
    """
    if media_type in {"text/html", "application/xhtml+xml"}:
        import trafilatura  # imported here: it is large, and few calls need it

        text = trafilatura.extract(body, url=url, output_format="markdown", include_links=True, include_tables=True)
        return str(text) if text else trafilatura.html2txt(body) or "(no text on this page)"
    if b"\0" in body[:8192]:
        raise ToolError(f"{url} is {media_type}: no text.")
    return body.decode(errors="replace")


def fetch_tool(allowed: Collection[str] = (), lookup: Lookup = system_lookup) -> Tool[FetchArguments]:
    """Return the tool. `allowed`: networks that are not public and may be reached nevertheless."""

    async def run(given: FetchArguments, _place: Place | None) -> Done:
        url, media_type, body = await fetched(given.url, allowed, lookup)
        text = await asyncio.to_thread(readable, body, media_type, url)
        return Done(f"{url}\n\n{text}")

    spec = spec_of(
        "web_fetch", "Fetch a web page and return its readable text.", FetchArguments, Permission.NETWORK,
        timeout_s=TIMEOUT_S, safe_to_repeat=True,
    )  # fmt: skip
    return Tool(spec, FetchArguments, run, needs_place=False)


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    async for block in answer.content.iter_chunked(1 << 16):
        found += block
        if len(found) > PAGE_BYTES:
            raise ToolError(f"The page has more than {PAGE_BYTES:,} bytes.")
    return bytes(found)


def _told(url: str, error: Exception) -> ToolError | RefusedError:
    seen: BaseException | None = error
    while seen is not None:  # what the resolver said lies below aiohttp's own error
        if isinstance(seen, ToolError | RefusedError):
            return seen
        seen = seen.__cause__
    return ToolError(f"{url} could not be fetched: {str(error) or type(error).__name__}.")
