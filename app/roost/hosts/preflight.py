"""Can Roost be installed here? Pure: facts and wishes in, all findings at once out. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import pairwise

from roost.hosts.facts import HostFacts, Listener
from roost.hosts.findings import Finding
from roost.hosts.findings_hardware import graphics_findings

ARCHITECTURES = ("x86_64", "aarch64")
OLDEST_DEBIAN = 12
DOCKER_CONTROLLERS = {1: {"cpu", "cpuset", "devices", "memory", "pids"}, 2: {"cpu", "cpuset", "memory", "pids"}}
NVIDIA_RUNTIME = "nvidia"
DAY_S = 86400.0
FAR_FUTURE_S = 15 * 365 * DAY_S
FAR_APART_S = 300.0  # half of what certificates are made valid before they are made (ops/pki.py)
APART_S = 10.0
# Docker's own minimum (its documentation, "Install Docker Engine from binaries"), and that of Debian 11.
OLDEST_KERNEL, OLD_KERNEL = (3, 10), (5, 10)
SYSTEM_HINTS = {
    "dnf": "Fedora and its relatives",
    "apk": "Alpine",
    "pacman": "Arch",
    "zypper": "openSUSE",
    "pkg": "FreeBSD",
}


@dataclass(frozen=True)
class PortWish:
    """A TCP port that Roost wants: the variable that sets it, and the address it is bound to."""

    variable: str
    port: int
    address: str


@dataclass(frozen=True)
class Wishes:
    """What the installation needs of this machine. Sizes in MiB."""

    runtime: str = "docker"  # or local
    engine: str = "llama.cpp"  # or llama-cpp-python
    offline: bool = False
    min_memory_mib: int = 0
    disks: Mapping[str, int] = field(default_factory=dict)  # path -> MiB wanted there
    ports: Sequence[PortWish] = ()
    listen_address: str = ""
    gateways: bool = False  # several: each listens on its own machine
    our_paths: Sequence[str] = ()  # a process started from below one of these is Roost's own
    our_uids: Sequence[int] = ()  # so is one of these users; a container's process may show no more than that
    docker_min_version: str = ""


def check(
    facts: HostFacts,
    wishes: Wishes,
    registries: Mapping[str, str] | None = None,
    *,
    unresolved: Sequence[str] = (),
    clock_here: float | None = None,
) -> list[Finding]:
    """Return everything that stands in the way, and what should be looked at.

    `registries` holds for each package client what it said when it could not reach its registry; empty if it could.
    `unresolved` are names of registries that the machine cannot resolve. `clock_here` is the controller's time, where
    the machine is another one.
    """
    return [
        *_root(facts),
        *_engine(wishes),
        *_system(facts),
        *_kernel(facts),
        *_init(facts),
        *_memory(facts, wishes),
        *_disks(facts, wishes),
        *_ports(facts, wishes),
        *_cgroups(facts, wishes),
        *_docker(facts, wishes),
        *_listen(facts, wishes),
        *_clock(facts),
        *_clock_apart(facts, clock_here),
        *_graphics(facts, wishes),
        *_names(unresolved, wishes),
        *_registries(registries or {}, wishes),
    ]


def _root(facts: HostFacts) -> Iterator[Finding]:
    if not facts.is_root:
        yield Finding(
            "root", "error", "This user is not root.",
            "Roost installs packages, users and services.", "Run it with sudo, or as root.",
        )  # fmt: skip


def _engine(wishes: Wishes) -> Iterator[Finding]:
    if wishes.runtime == "docker" and wishes.engine == "llama-cpp-python":
        yield Finding(
            "engine", "error", "The engine llama-cpp-python runs only without containers.",
            "It is compiled on the machine itself, so there is no image of it.",
            "Use --run-local, or set engine to llama.cpp.",
        )  # fmt: skip


def _system(facts: HostFacts) -> Iterator[Finding]:
    if facts.arch not in ARCHITECTURES:
        yield Finding(
            "arch", "error", f"The processor architecture {facts.arch} is not supported.",
            "The model server's packages and Nomad are made for " + " and ".join(ARCHITECTURES) + ".",
            "Use a 64-bit x86 or ARM machine.",
        )  # fmt: skip
    if "apt-get" not in facts.package_managers:
        known = next((SYSTEM_HINTS[m] for m in facts.package_managers if m in SYSTEM_HINTS), "")
        yield Finding(
            "os", "error", f"{facts.os_name} is not supported yet.",
            f"Roost knows {known}, but installs its packages with apt only." if known
            else "No package manager was found that Roost can use; it needs apt.",
            f"Use Debian {OLDEST_DEBIAN} or later, or a system made from it.",
        )  # fmt: skip
    elif facts.debian_generation is None:
        yield Finding(
            "os", "warning", f"It is not known which Debian {facts.os_name} is made from.",
            f"Roost is made for Debian {OLDEST_DEBIAN} and later.", "Go on if it is a recent one.",
        )  # fmt: skip
    elif facts.debian_generation < OLDEST_DEBIAN:
        yield Finding(
            "os", "error", f"{facts.os_name} is too old.",
            f"Roost needs what Debian {OLDEST_DEBIAN} brought: Python 3.11 and newer system libraries.",
            f"Upgrade to Debian {OLDEST_DEBIAN} or later, or a system made from it.",
        )  # fmt: skip


def _kernel(facts: HostFacts) -> Iterator[Finding]:
    version = tuple(int(part) for part in re.findall(r"\d+", facts.kernel)[:2])
    if len(version) == 2 and version < OLD_KERNEL:
        too_old = version < OLDEST_KERNEL
        word = "too old" if too_old else "old"
        yield Finding(
            "kernel", "error" if too_old else "warning", f"The kernel {facts.kernel} is {word}.",
            "Docker does not work with it." if too_old else "Roost is tried with that of Debian 12 (6.1) and newer.",
            f"Use a kernel of version {OLD_KERNEL[0]}.{OLD_KERNEL[1]} or newer, and restart; a container has its "
            "host's.",
        )  # fmt: skip


def _init(facts: HostFacts) -> Iterator[Finding]:
    if facts.init == "none":
        yield Finding(
            "init", "warning", "The first process of this machine is neither systemd nor init.",
            "Roost runs, but nothing starts it again when the machine restarts.",
            "After a restart run ./bootstrap.sh again.",
        )  # fmt: skip


def _memory(facts: HostFacts, wishes: Wishes) -> Iterator[Finding]:
    need = wishes.min_memory_mib
    limited = " (the limit of its cgroup)" if facts.memory_limit_mib else ""
    if facts.memory_total_mib < need:
        yield Finding(
            "memory", "error",
            f"This machine has {facts.memory_total_mib} MiB of memory{limited}, {need} MiB are needed.",
            "The model, the agent, Nomad and Docker would be killed for lack of memory.",
            "Give it more memory, or choose a smaller model and context in model_slots and lower "
            "preflight_min_memory_mib.",
        )  # fmt: skip
    elif facts.memory_available_mib < need and not _our_listeners(facts, wishes):
        yield Finding(
            "memory", "warning",
            f"{facts.memory_available_mib} MiB of memory are free at the moment{limited}, {need} MiB are needed.",
            "Other programs use the rest; the model may be slow or be killed.", "End what is not needed.",
        )  # fmt: skip


def _disks(facts: HostFacts, wishes: Wishes) -> Iterator[Finding]:
    for disk in facts.disks:
        if disk.path in wishes.disks and not disk.writable:
            yield Finding(
                f"disk:{disk.path}", "error", f"{disk.path} is on a file system that is mounted read-only.",
                "Roost keeps files there.", "Mount it writable, or choose another folder.",
            )  # fmt: skip
    for device in dict.fromkeys(d.device for d in facts.disks):
        same = [d for d in facts.disks if d.device == device and d.path in wishes.disks]
        need = sum(wishes.disks[d.path] for d in same)
        if same and same[0].free_mib < need:
            where = ", ".join(d.path for d in same)
            yield Finding(
                f"disk:{same[0].path}", "error",
                f"{same[0].free_mib} MiB are free on the disk of {where}, {need} MiB are needed.",
                "Packages, images and the model are kept there.", f"Free {need - same[0].free_mib} MiB on it.",
            )  # fmt: skip


def is_ours(listener: Listener, our_paths: Sequence[str], our_uids: Sequence[int] = ()) -> bool:
    """Say whether a listening process is Roost's own: by its user, or from, or configured in, one of our folders."""
    if listener.uid in our_uids:
        return True
    words = listener.command.split()
    below = any(w == p or w.startswith(f"{p}/") or f"={p}/" in w for w in words for p in our_paths)
    return below or ("-m", "roost") in pairwise(words) or ("-m", "roost.cli.serve") in pairwise(words)


def _our_listeners(facts: HostFacts, wishes: Wishes) -> bool:
    return any(is_ours(listener, wishes.our_paths, wishes.our_uids) for listener in facts.listeners)


def owner(listener: Listener) -> str:
    """Name the process that holds a port, as far as it is known."""
    if not listener.pid:
        return "a process that cannot be seen from here"
    command = " ".join(listener.command.split())
    return f"{listener.process} (process {listener.pid}: {command[:120]})"


def _ports(facts: HostFacts, wishes: Wishes) -> Iterator[Finding]:
    for wish in wishes.ports:
        for listener in facts.listeners:
            if listener.port != wish.port or is_ours(listener, wishes.our_paths, wishes.our_uids):
                continue
            if not _same_place(listener.address, wish.address):
                continue
            yield Finding(
                f"port:{wish.port}", "error",
                f"Port {wish.port} on {listener.address} is taken by {owner(listener)}.",
                f"Roost wants it ({wish.variable}).",
                f"Stop that program, or choose another port: ./bootstrap.sh --set {wish.variable}=NUMBER.",
            )  # fmt: skip
            break


def _same_place(one: str, other: str) -> bool:
    """Say whether sockets bound to these addresses are in each other's way; what is no address is somewhere else."""
    return one == other or _is_unspecified(one) or _is_unspecified(other)


def _is_unspecified(address: str) -> bool:
    try:
        return ip_address(address).is_unspecified
    except ValueError:
        return False


def _cgroups(facts: HostFacts, wishes: Wishes) -> Iterator[Finding]:
    if wishes.runtime != "docker" or facts.docker.running:
        return  # a daemon that runs has shown that it can
    why = "Docker limits and separates containers by cgroups."
    fix = "Make cgroups available (mount /sys/fs/cgroup writable), or run without containers: --run-local."
    missing = DOCKER_CONTROLLERS.get(facts.cgroup_version, set()) - set(facts.cgroup_controllers)
    if facts.cgroup_version == 0:
        yield Finding("cgroups", "error", "No cgroup controllers are mounted here.", why, fix)
    elif missing:
        yield Finding(
            "cgroups", "error",
            f"The cgroup controllers {', '.join(sorted(missing))} (version {facts.cgroup_version}) are missing.",
            why, fix,
        )  # fmt: skip
    elif facts.is_root and not facts.cgroup_writable:
        yield Finding("cgroups", "error", "/sys/fs/cgroup is read-only here.", why, fix)


def _docker(facts: HostFacts, wishes: Wishes) -> Iterator[Finding]:
    have, least = facts.docker.version, wishes.docker_min_version
    if wishes.runtime == "docker" and have and least and _numbers(have) < _numbers(least):
        yield Finding(
            "docker", "error", f"Docker {have} is here, {least} or later is needed.",
            "Nomad's Docker driver needs a newer one.", "Upgrade Docker, or run without containers: --run-local.",
        )  # fmt: skip


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _listen(facts: HostFacts, wishes: Wishes) -> Iterator[Finding]:
    if not wishes.listen_address:
        return
    own = facts.own_addresses()
    usable = ", ".join(sorted(a for a in own if not ip_address(a).is_loopback and not ip_address(a).is_link_local))
    fix = f"Use one of: {usable}."
    if wishes.gateways:  # an address of this machine would be as wrong on the others
        fix = (
            "With gateway_replicas each machine needs its own. Take back what holds for all (./bootstrap.sh --set "
            "api_listen_address=), and in the inventory give each host its node_address and "
            'api_listen_address: "{{ node_address }}".'
        )
    try:
        address = ip_address(wishes.listen_address)
    except ValueError:
        yield Finding(
            "listen", "error", f"{wishes.listen_address!r} is not an IP address.",
            "--listen takes an address of this machine.", fix,
        )  # fmt: skip
        return
    if str(address) not in own:
        yield Finding(
            "listen", "error", f"This machine does not have the address {address}.",
            "The API can only listen on an address of this machine.", fix,
        )  # fmt: skip
    elif address.is_global:
        yield Finding(
            "listen", "warning", f"{address} is a public address.",
            "Everyone on the Internet can reach the API there; only the key and TLS protect it.",
            "Prefer an address of a private network, or let a firewall admit only whom you know.",
        )  # fmt: skip


def _clock(facts: HostFacts) -> Iterator[Finding]:
    behind = facts.clock_floor - facts.clock
    if behind > DAY_S:
        yield Finding(
            "clock", "error", f"The clock is {behind / DAY_S:.0f} days behind the newest file of this system.",
            "Certificates made now would not be valid, and downloads cannot be verified.",
            "Set the clock, for example with a time service (systemd-timesyncd, chrony).",
        )  # fmt: skip
    elif facts.clock_floor and -behind > FAR_FUTURE_S:
        yield Finding(
            "clock", "warning", "The clock is many years after this system was last changed.",
            "If it is wrong, certificates end too early or are not yet valid for others.", "Check the date.",
        )  # fmt: skip


def _clock_apart(facts: HostFacts, clock_here: float | None) -> Iterator[Finding]:
    if clock_here is None:
        return
    apart = abs(facts.clock - clock_here)
    if apart > APART_S:
        yield Finding(
            "clock-apart", "error" if apart > FAR_APART_S else "warning",
            f"The clock is {apart:.0f} s {'ahead of' if facts.clock > clock_here else 'behind'} that of the machine "
            "from which the fleet is set up.",
            "Certificates made there would not be valid here yet, or be at their end too early.",
            "Set the clocks of both, with a time service (systemd-timesyncd, chrony).",
        )  # fmt: skip


def _graphics(facts: HostFacts, wishes: Wishes) -> Iterator[Finding]:
    """What keeps models off a card that is here: its driver, and Docker's way to it."""
    yield from graphics_findings(facts)
    cards = [gpu for gpu in facts.gpus if gpu.vendor == "NVIDIA" and gpu.driver == "nvidia"]
    docker = facts.docker
    if wishes.runtime == "docker" and cards and docker.running and NVIDIA_RUNTIME not in docker.runtimes:
        yield Finding(
            "gpu-runtime", "warning", f"Docker has no runtime for NVIDIA's cards, and here is {cards[0].name}.",
            "Containers cannot compute on the card: a model server that is planned for it does not start.",
            "Install nvidia-container-toolkit, run `nvidia-ctk runtime configure`, restart Docker; or --run-local.",
        )  # fmt: skip


def _names(unresolved: Sequence[str], wishes: Wishes) -> Iterator[Finding]:
    if unresolved and not wishes.offline:
        yield Finding(
            "dns", "error", f"Names cannot be resolved: {', '.join(unresolved)}.",
            "Packages are fetched from there.",
            "Name a server that answers in /etc/resolv.conf (`getent hosts NAME` tries it), or use --offline DIR.",
        )  # fmt: skip


def _registries(registries: Mapping[str, str], wishes: Wishes) -> Iterator[Finding]:
    if wishes.offline:
        return
    for client, said in registries.items():
        if said:
            fix = (
                "Connect this machine to the network, set its proxy or mirror, or bring a folder made by "
                "`roost bundle DIR` and use --offline DIR."
            )
            if "certificate" in said.lower():
                fix = "Give the proxy's CA: ROOST_EXTRA_CA_BUNDLE=/path/ca.pem ./bootstrap.sh"
            what = f"{client} cannot reach its registry: {said}"
            yield Finding(f"registry:{client}", "error", what, "Packages are fetched from there.", fix)
