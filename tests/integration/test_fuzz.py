"""Malformed requests, ours and those that schemathesis makes of the OpenAPI document: none fails the service or stays.

`bench/run fuzz` sends 100,000 to the service as a process, and looks at its memory.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from roost.gateway.connection.protocol import http_protocol
from tests.support.fakes import fake_engine
from tests.support.fuzz import Fuzzed, fuzz, malformed
from tests.support.fuzz_schema import from_document
from tests.support.gateway import Served, quick_settings, served
from tests.support.net import eventually

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "What is the capital of France?"}]}


def counts() -> tuple[int, int]:
    """Return how many of our own requests, and how many for each operation: more in `tests/run full`."""
    return (1500, 6) if settings().derandomize else (20_000, 60)


async def still_well(gateway: Served, found: Fuzzed, tasks: int) -> None:
    """See that nothing failed, all complete requests had an answer, and nothing is left of any."""
    assert found.failures == []
    assert found.unanswered == []
    assert found.statuses[400] > 0
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, 20, "all tasks to end")
    async with gateway.client.post(gateway.url + "/v1/chat/completions", json=QUESTION) as answer:
        assert answer.status == 200
        assert (await answer.json())["choices"][0]["message"]["content"]


@pytest.mark.timeout(900)
async def test_malformed_requests(tmp_path: Path) -> None:
    async with fake_engine() as engine:
        settings_ = quick_settings(tmp_path, static_endpoints=engine.url, log_level="error")
        async with served(settings_, http=http_protocol(settings_.header_timeout_s)) as gateway:
            await gateway.ready()
            port = int(gateway.url.rpartition(":")[2])
            async with gateway.client.get(gateway.url + "/openapi.json") as answer:
                document: dict[str, Any] = await answer.json()
            tasks = len(asyncio.all_tasks()) + 4  # connections of probes come and go
            own, each = counts()
            await still_well(gateway, await fuzz(port, malformed(1, own)), tasks)
            made = await asyncio.to_thread(from_document, document, each)
            await still_well(gateway, await fuzz(port, made), tasks)
