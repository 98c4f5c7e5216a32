"""What a real Nomad says of a host's use, as the gateway reads it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from roost.gateway.endpoints.hosts import NODE, STATS, use_of
from tests.support.net import wait_until
from tests.support.nomad_tls import nomad_server


def test_processors_and_memory_of_a_host_are_known() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="n", ignore_cleanup_errors=True) as folder,
        nomad_server(Path(folder)) as client,
    ):
        wait_until(lambda: bool(client.get("nodes")), 30, "the node")
        (stub,) = client.get("nodes")
        name = NODE.validate_python(client.get(f"node/{stub['ID']}")).name
        wait_until(lambda: bool(client.get("client/stats").get("CPU")), 30, "figures")
        raw = client.get("client/stats")
        found = use_of(name, STATS.validate_python(raw))
        assert found.name == stub["Name"]
        assert found.cpu is not None, raw["CPU"]
        assert 0 <= found.cpu <= 1
        idle = sum(cpu["Idle"] for cpu in raw["CPU"]) / len(raw["CPU"])
        assert abs(found.cpu - (1 - idle / 100)) < 0.15, raw["CPU"]
        assert found.ram_used is not None
        assert found.ram_total is not None
        assert 0 < found.ram_used < found.ram_total
        assert found.vram_total is None  # no device plugin tells of a card here
