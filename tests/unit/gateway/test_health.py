"""/healthz when a background task died."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway import quick_settings, served


async def test_healthz_is_503_once_a_background_task_died(tmp_path: Path) -> None:
    async with served(quick_settings(tmp_path)) as gateway:
        async with gateway.client.get(f"{gateway.url}/healthz") as answer:
            assert answer.status == 200
        gateway.gateway.registry.fail("nomad discovery")
        async with gateway.client.get(f"{gateway.url}/healthz") as answer:
            assert (answer.status, (await answer.json())["status"]) == (503, "died: nomad discovery")
