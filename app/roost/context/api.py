"""Asking the OpenAI-compatible API something that may be asked twice: counts, summaries."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp


async def ask(
    session: aiohttp.ClientSession, url: str, key: str, body: Mapping[str, object], timeout_s: float
) -> tuple[int, bytes]:
    """Return status and body of an answer. Raises TimeoutError, aiohttp.ClientError.

    A server may close an idle connection just as it is used again; it has not read such a request, which is therefore
    sent once more.
    """
    try:
        return await _ask(session, url, key, body, timeout_s)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        return await _ask(session, url, key, body, timeout_s)


async def _ask(
    session: aiohttp.ClientSession, url: str, key: str, body: Mapping[str, object], timeout_s: float
) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with session.post(url, json=body, headers=headers, timeout=timeout) as answer:
        return answer.status, await answer.read()
