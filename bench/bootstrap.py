"""How long `./bootstrap.sh` takes: cold (nothing cached), no-op, and warm, each on a clean disposable host."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.hosts import host as hosts
from tests.hosts import roots
from tests.hosts.docker import sweep
from tests.hosts.host import Host, lan, running

from bench.results import ROOT, save

NOOP_RUNS = 3


def tasks_in(log: str) -> int:
    """Number of tasks that a playbook's log shows."""
    return len(re.findall(r"^\S+ task: ", log, re.MULTILINE))


def steps_in(output: str) -> dict[str, float]:
    """Seconds of each step, from bootstrap.sh's own display."""
    return {name: float(s) for name, s in re.findall(r"^✓ ([\w-]+)\s+([\d.]+) s", output, re.MULTILINE)}


def measure_host(name: str, cache: Path, host_cache: Path, *, repeats: int) -> dict[str, Any]:
    """Install on a clean host, then run again `repeats` times; seconds."""
    with (
        lan(name) as net,
        running(Host.start(hosts.SYSTEMD, name, lan=net, cache=cache, host_cache=host_cache)) as host,
    ):
        host.copy_clone(ROOT)
        first = host.bootstrap("--yes", timeout_s=1500)
        sys.stdout.write(f"{name}: {first.seconds:.1f} s\n")
        found: dict[str, Any] = {"first_s": round(first.seconds, 1), "steps_s": steps_in(first.out)}
        again = []
        for _ in range(repeats):
            done = host.bootstrap("--yes")
            again.append(round(done.seconds, 1))
            sys.stdout.write(f"{name}, again: {done.seconds:.1f} s\n")
        if again:
            found["again_s"] = again
            found["again_tasks"] = tasks_in(host.exec("cat $(ls -t /var/log/roost/bootstrap*.log | head -n 1)").out)
        return found


def main() -> None:
    """Measure and save."""
    cache = Path(os.environ["ROOST_TEST_CACHE"])
    sweep()
    # Everything a host keeps or apt downloads starts empty; only the host's own root is made before.
    empty = Path(tempfile.mkdtemp(dir=cache, prefix="bench."))
    try:
        roots.ensure_image(hosts.SYSTEMD.root, cache)
        for part in ("roots", "debs"):
            (empty / part).symlink_to(cache / part)
        cold = measure_host("cold", empty, empty / "host", repeats=NOOP_RUNS)
        warm = measure_host("warm", empty, empty / "host", repeats=0)
    finally:
        sweep()
        shutil.rmtree(empty, ignore_errors=True)
    path = save(
        "bootstrap",
        {
            "cold_s": cold["first_s"],
            "warm_s": warm["first_s"],
            "noop_s": min(cold["again_s"]),
            "noop_runs_s": cold["again_s"],
            "tasks": cold["again_tasks"],
            "cold_steps_s": cold["steps_s"],
            "warm_steps_s": warm["steps_s"],
        },
    )
    sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
