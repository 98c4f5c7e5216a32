"""What Docker leaves in the kernel when its packages go: a bridge, and chains of packet rules."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from roost.ops.run import run

BRIDGE = "docker0"
SYS_NET = Path("/sys/class/net")
OF_DOCKER = re.compile(r"\bDOCKER(-[A-Z0-9-]+)?\b|\bdocker0\b")
TOOLS = (("iptables-save", "iptables-restore"), ("ip6tables-save", "ip6tables-restore"))


def without_docker(rules: str) -> str:
    """Return the text of `iptables-save` without Docker's chains, the rules in them and those that jump to them."""
    return "".join(line for line in rules.splitlines(keepends=True) if not OF_DOCKER.search(line))


def docker_traces() -> list[str]:
    """Name what is there of Docker's: the bridge, and the rule sets that mention it."""
    found = [f"network bridge {BRIDGE}"] if (SYS_NET / BRIDGE).exists() else []
    for save, _ in TOOLS:
        if shutil.which(save):
            rules = run([save])
            if without_docker(rules) != rules:
                found.append(f"rules of {save.removesuffix('-save')}")
    return found


def remove_docker_traces() -> None:
    """Remove Docker's bridge and rules; every other rule stays. Docker itself must have been stopped before."""
    for save, restore in TOOLS:
        if not shutil.which(save):
            continue
        rules = run([save])
        kept = without_docker(rules)
        if kept != rules:
            run([restore], stdin=kept)
    if (SYS_NET / BRIDGE).exists():
        run(["ip", "link", "delete", BRIDGE])
