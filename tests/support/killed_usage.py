"""A gateway that is killed again and again under load: `PYTHONPATH=app:. python tests/support/killed_usage.py 100`.

Every answer whose last byte a client has must be in the usage after the next start, and none twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.support.fakes import USAGE, fake_engine
from tests.support.gateway import API_KEY, Service, service, write_keys
from tests.support.net import eventually

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
CLIENTS = 4
FEWEST = 8  # answers in each life, however slow the machine is
LAST = b"data: [DONE]\n\n"
SHORTEST_S, LONGER_S = 0.02, 0.4  # a life under load lasts at least so long, and at most so much longer


@dataclass
class Lives:
    """What came of it, added up over all lives of the service."""

    kills: int = 0
    acknowledged: int = 0  # answers whose last byte reached its client
    begun: int = 0  # requests that were sent
    lost: int = 0  # acknowledged, and not in the usage
    invented: int = 0  # in the usage, and never sent
    wrong_tokens: int = 0  # requests whose tokens are not those of the answer
    counts: list[int] = field(default_factory=list)


async def kill_gateways(wanted: int, folder: Path) -> Lives:
    """Kill the service `wanted` times under load, and look at the usage after each start."""
    state = folder / "state"
    state.mkdir()
    key_file = folder / "engine-key"
    key_file.write_text("engine-key")
    lives = Lives()
    async with fake_engine() as engine:
        environment = {
            "ROOST_API_KEYS_FILE": str(write_keys(folder)),
            "ROOST_ENGINE_KEY_FILE": str(key_file),
            "ROOST_STATIC_ENDPOINTS": engine.url,
            "ROOST_STATE_DIR": str(state),
            "ROOST_PROBE_UNREADY_EVERY_S": "0.05",
        }
        for number in range(wanted + 1):
            headers = {"Authorization": f"Bearer {API_KEY}"}
            with service(folder, environment) as running:
                async with aiohttp.ClientSession(headers=headers) as client:
                    await _compare(lives, client, running)
                    if number < wanted:
                        await _load_and_kill(lives, client, running, number)
    return lives


async def _compare(lives: Lives, client: aiohttp.ClientSession, running: Service) -> None:
    async with client.get(f"{running.url}/v1/usage?by=") as answer:
        (sums,) = (await answer.json())["data"] or [{"requests": 0, "prompt_tokens": 0, "estimated": 0}]
    found = int(sums["requests"])
    lives.counts.append(found)
    lives.lost = max(lives.lost, lives.acknowledged - found)
    lives.invented = max(lives.invented, found - lives.begun)
    counted = found - int(sums["estimated"])
    lives.wrong_tokens += counted * USAGE["prompt_tokens"] > int(sums["prompt_tokens"])


async def _load_and_kill(lives: Lives, client: aiohttp.ClientSession, running: Service, number: int) -> None:
    await eventually(lambda: _routable(client, running), 20, "the model to be routable")
    asking = [asyncio.create_task(_ask_on(lives, client, running, stream=n % 2 == 0)) for n in range(CLIENTS)]
    chance = int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:4]) / (1 << 32)
    known = lives.acknowledged
    await eventually(lambda: lives.acknowledged >= known + FEWEST, 60, "answers")
    await asyncio.sleep(SHORTEST_S + chance * LONGER_S)
    running.process.kill()
    running.process.wait()
    lives.kills += 1
    await asyncio.gather(*asking, return_exceptions=True)


async def _routable(client: aiohttp.ClientSession, running: Service) -> bool:
    async with client.get(f"{running.url}/readyz") as answer:
        return answer.status == 200


async def _ask_on(lives: Lives, client: aiohttp.ClientSession, running: Service, *, stream: bool) -> None:
    while True:
        lives.begun += 1
        try:
            async with client.post(f"{running.url}/v1/chat/completions", json={**QUESTION, "stream": stream}) as answer:
                body = b""
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if stream and body.endswith(LAST):
                        break  # that is the last byte for a client; the connection's own end may never come
                whole = body.endswith(LAST) if stream else bool(body)
                lives.acknowledged += answer.status == 200 and whole
        except aiohttp.ClientError:
            return


if __name__ == "__main__":
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        result = asyncio.run(kill_gateways(int(sys.argv[1]), Path(made)))
    print(
        f"{result.kills} kills in {time.monotonic() - began:.0f} s, {result.begun} requests, "
        f"{result.acknowledged} acknowledged, {result.counts[-1]} in the usage: {result.lost} lost, "
        f"{result.invented} invented, {result.wrong_tokens} with wrong tokens"
    )
    sys.exit(bool(result.lost or result.invented or result.wrong_tokens))
