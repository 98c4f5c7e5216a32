"""Hosts of a Molecule scenario: `python -m tests.hosts.scenario create|destroy|reboot NAME|compare NAME`.

Molecule's playbooks call it. It reads the platforms of $MOLECULE_FILE:

    name        the host, and its name
    groups      of the inventory (Molecule's own)
    kind        fleet (Debian 12 with systemd and SSH, by default) or neighbour (one that only looks)
    lans        networks it is on; the first has the default route
    disks       path to the options of a tmpfs: a disk that can be filled
    variables   of the host, for the inventory

and writes an inventory beside Molecule's own: how SSH reaches each host, and its address on each network. The hosts lie
in networks of a dockerd that this machine has no route to, so SSH speaks to an sshd started by `docker exec`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from tests.hosts import host as hosts
from tests.hosts.docker import LABEL, call, docker, sweep
from tests.hosts.host import Host, Kind, Lan, node_environment
from tests.hosts.snapshot import COLLECT, compare, parse

Platform = Mapping[str, Any]
FIRST = 11  # the last part of the first host's address
INVENTORY = "hosts.yaml"
# What Python, apt and a login leave that nobody would miss; the volume of Docker's data is the test's own.
LEFT = (
    r"^/etc/(ld\.so\.conf\.d|alternatives)(/|$)",
    r"^/usr/(local/)?lib/python3[^/]*/.*__pycache__",
    r"^/root/\.(ssh|ansible|cache)(/|$)",
    r"^/root$",
    # Versions of files that packages brought, as ucf(1) writes them down; it keeps the last ones.
    r"^/var/lib/ucf/(hashfile|registry)\.\d$",
)


def kind_of(platform: Platform) -> Kind:
    """Return what a platform boots; $ROOST_MOLECULE_SUITE has it be of another Debian."""
    if platform.get("kind") == "neighbour":
        return hosts.NEIGHBOUR
    return hosts.FLEET_13 if os.environ.get("ROOST_MOLECULE_SUITE") == "trixie" else hosts.FLEET


class Scenario:
    """A scenario of Molecule: its platforms, and the folder where it keeps what it needs between its steps."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read what Molecule and tests/run say.

        Raises:
            KeyError: it was not started by Molecule below tests/run.
        """
        self.folder = Path(environment["MOLECULE_EPHEMERAL_DIRECTORY"])
        self.cache = Path(environment["ROOST_TEST_CACHE"])
        self.name = environment["MOLECULE_SCENARIO_NAME"]
        self.platforms: list[Platform] = yaml.safe_load(Path(environment["MOLECULE_FILE"]).read_text())["platforms"]

    @property
    def key(self) -> Path:
        """The key that root of each host trusts."""
        return self.folder / "id_ed25519"

    def create(self) -> None:
        """Boot what does not run yet, and write the inventory.

        Raises:
            DockerError: a network or a host could not be made.
            TimeoutError: a host did not boot.
        """
        running = docker("ps", "--filter", f"label={LABEL}", "--format", "{{.Names}}").split()
        if set(running) >= {platform["name"] for platform in self.platforms}:
            return
        sweep(LABEL)
        names = list(dict.fromkeys(lan for platform in self.platforms for lan in lans_of(platform)))
        lans = {name: Lan.create(f"{self.name}-{name}") for name in names}
        self.key.unlink(missing_ok=True)
        call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)])

        def boot(number: int) -> Host:
            platform = self.platforms[number]
            first, *others = (lans[name] for name in lans_of(platform))
            shared = self.cache / "host" if number == 0 else self.cache / "fleet" / platform["name"]
            host = Host.start(
                kind_of(platform), platform["name"], lan=first, number=FIRST + number, cache=self.cache,
                host_cache=shared, tmpfs=platform.get("disks"),
            )  # fmt: skip
            for lan in others:
                lan.join(host.name, FIRST + number)
            if host.kind.root.ssh:
                host.exec("mkdir -p -m 700 /root/.ssh")
                host.write("/root/.ssh/authorized_keys", self.key.with_suffix(".pub").read_text())
            (self.folder / f"{host.name}.before").write_text(host.exec(COLLECT).out)
            return host

        with ThreadPoolExecutor() as pool:
            started = list(pool.map(boot, range(len(self.platforms))))
        entries = {host.name: self.entry(number, host, lans) for number, host in enumerate(started)}
        (self.folder / INVENTORY).write_text(yaml.safe_dump({"all": {"hosts": entries}}, sort_keys=False))

    def entry(self, number: int, host: Host, lans: Mapping[str, Lan]) -> dict[str, object]:
        """Return what the inventory says of a host."""
        known = self.folder / "known_hosts"
        if host.kind.root.ssh:
            with known.open("a") as file:
                file.write(f"{host.name} {host.exec('cat /etc/ssh/ssh_host_ed25519_key.pub').out.strip()}\n")
        return {
            "ansible_host": host.name,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": (
                f"-o UserKnownHostsFile={known} -o ProxyCommand='docker exec -i {host.name} /usr/sbin/sshd -i'"
            ),
            "node_environment": node_environment(os.environ),
            "lan_addresses": {
                name: lans[name].address(FIRST + number) for name in lans_of(self.platforms[number])
            },
            "lan_subnets": {name: f"{lans[name].subnet}.0/24" for name in lans},
            **(self.platforms[number].get("variables") or {}),
        }  # fmt: skip

    def host(self, name: str) -> Host:
        """Return a host that runs, by its name."""
        platform = next(p for p in self.platforms if p["name"] == name)
        return Host(name, kind_of(platform), Lan("", ""), "", hosts.logs_folder(self.cache))

    def address(self, name: str, lan: str = "lan") -> str:
        """Return a host's address on one of its networks."""
        entries = yaml.safe_load((self.folder / INVENTORY).read_text())["all"]["hosts"]
        return str(entries[name]["lan_addresses"][lan])

    def destroy(self) -> None:
        """Keep what explains a failure, and remove hosts and networks."""
        running = docker("ps", "--filter", f"label={LABEL}", "--format", "{{.Names}}").split()
        for platform in self.platforms:
            if platform["name"] in running:
                self.host(platform["name"]).collect()
        sweep(LABEL)
        (self.folder / "known_hosts").unlink(missing_ok=True)

    def compare(self, name: str) -> str:
        """Return what is on a host now and was not before anything was installed, or the other way round."""
        before = parse((self.folder / f"{name}.before").read_text())
        return str(compare(before, self.host(name).snapshot(), ignore_paths=LEFT) or "")


def lans_of(platform: Platform) -> list[str]:
    """Return the names of a platform's networks."""
    return list(platform.get("lans") or ["lan"])


def main(verb: str, *names: str) -> int:
    """Run a verb; 1 if a comparison found something."""
    scenario = Scenario(os.environ)
    if verb in ("create", "destroy"):
        getattr(scenario, verb)()
    elif verb == "reboot":
        for name in names:
            scenario.host(name).reboot()
    elif verb == "compare":
        found = {name: text for name in names if (text := scenario.compare(name))}
        sys.stdout.write(json.dumps(found))
        return 1 if found else 0
    else:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
