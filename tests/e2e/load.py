"""Clients that ask all the time while a fleet changes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.e2e.fleet import CLONE
from tests.hosts.host import Host, wait_until

Json = Any
WORKERS = 4  # every second one streams
OUT = "/tmp/load.json"  # noqa: S108 - on a disposable host
PROGRAM = "/root/load.py"


@dataclass
class Load:
    """Clients that ask all the time, on one host."""

    host: Host

    def look(self) -> dict[str, Json]:
        """What they asked until now."""
        return dict(json.loads(self.host.exec(f"cat {OUT}").out))

    def since(self, before: dict[str, Json]) -> dict[str, Json]:
        """What they asked since then; a failed request fails the test."""
        now = self.look()
        assert now["failed"] == 0, "\n".join(now["failures"])
        return {kind: now[kind] - before[kind] for kind in ("plain", "streamed")}


@contextlib.contextmanager
def asking(host: Host, urls: Sequence[str]) -> Iterator[Load]:
    """Have clients on a host ask gateways in turn (`tests/hosts/load.py`) until the end of the block."""
    python = host.exec("ls /opt/roost/venvs/*/bin/python | head -n 1").out.strip()
    # A copy: the clone may be another one in the meantime.
    host.exec(f"rm -f {OUT}; cp {CLONE}/tests/hosts/load.py {PROGRAM}")
    words = f"{OUT} /etc/roost/tls/ca.pem /etc/roost/secrets/api-key {WORKERS} {' '.join(urls)}"
    host.spawn(f"echo $$ > /run/load.pid; exec nice -n 5 {python} {PROGRAM} {words}")
    wait_until("clients ask", lambda: host.exec(f"cat {OUT}", check=False).code == 0, 20)
    try:
        yield Load(host)
    finally:
        host.exec(f"kill $(cat /run/load.pid); rm -f {PROGRAM}", check=False)
