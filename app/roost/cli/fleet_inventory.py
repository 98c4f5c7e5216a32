"""What the verbs of `roost fleet` share: the kept inventory, and the run of bootstrap.sh that applies it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from roost.fleet import inventory
from roost.fleet.membership import look
from roost.fleet.nomad_api import NomadClient
from roost.ops.errors import RoostError
from roost.ops.site import Site

KEPT = "inventory.yaml"
NOT_COMPLETE = "The change is not complete."
AGAIN = "Correct what is said above, and run it again."


def inventory_path(site: Site) -> Path:
    """Return where `bootstrap.sh` keeps the inventory: beside the folder of certificates."""
    return site.nomad_ca.parent.parent / KEPT


def present_inventory(site: Site) -> inventory.Json:
    """Return the inventory; of a machine that was alone so far one with itself."""
    path = inventory_path(site)
    if path.exists() or site.fleet:
        return inventory.read(path)
    machine = look(NomadClient.from_site(site)).machines[0]
    return inventory.alone(machine.name, machine.address)


def _words(site: Site, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    script = site.install_dir / "current" / "bootstrap.sh"
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return ["sh", str(script), "--yes", *arguments], environment


def run_bootstrap(site: Site, arguments: Sequence[str], *, quiet: bool = False) -> None:
    """Run the installed bootstrap.sh; `quiet`: what it says of its steps goes to standard error.

    Raises:
        RoostError: it failed; it has said why.
    """
    words, environment = _words(site, arguments)
    code = subprocess.run(words, env=environment, stdout=sys.stderr if quiet else None, check=False).returncode
    if code:
        raise RoostError(NOT_COMPLETE, fix=AGAIN, exit_code=code)


def follow_bootstrap(site: Site, arguments: Sequence[str]) -> Iterator[str]:
    """Run the installed bootstrap.sh and yield its lines as they come.

    Raises:
        RoostError: it failed; its lines have said why.
    """
    words, environment = _words(site, arguments)
    with subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    ) as running:  # fmt: skip
        for line in running.stdout or ():
            yield line.rstrip("\n")
    if running.returncode:
        raise RoostError(NOT_COMPLETE, fix=AGAIN, exit_code=running.returncode)
