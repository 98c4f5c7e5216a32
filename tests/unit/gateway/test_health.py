"""/healthz when a background task died."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.gateway import quick_settings, served
from tests.support.net import eventually


async def test_healthz_is_503_once_a_background_task_died(tmp_path: Path) -> None:
    async with served(quick_settings(tmp_path)) as gateway:
        async with gateway.client.get(f"{gateway.url}/healthz") as answer:
            assert answer.status == 200
        gateway.gateway.registry.fail("nomad discovery")
        async with gateway.client.get(f"{gateway.url}/healthz") as answer:
            assert (answer.status, (await answer.json())["status"]) == (503, "died: nomad discovery")


async def test_readyz_is_open_and_shows_no_address(tmp_path: Path) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-something\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        endpoints = f"http://127.0.0.1:{port},rest=http://[no-address]:{port}"
        async with served(quick_settings(tmp_path, static_endpoints=endpoints)) as gateway:
            await eventually(lambda: gateway.states() == ["down", "down"], 5, "the probes")
            async with gateway.client.get(f"{gateway.url}/readyz", headers={"Authorization": ""}) as answer:
                document = await answer.text()
            assert answer.status == 503
            assert "no HTTP" in document
            assert str(port) not in document
