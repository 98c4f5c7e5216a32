"""What is on a host, as plain data, so that two moments can be compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Run on the host with sh. Every section is a line "== name" and then one item a line.
COLLECT = r"""
echo '== files'
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/lib/docker \) -prune \
    -o -printf '%y\t%m\t%u:%g\t%p\t%l\n'
echo '== sums'
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/lib/docker \) -prune \
    -o -type f -print0 | xargs -0 sha256sum
echo '== users'
cut -d: -f1,3,6,7 /etc/passwd
echo '== groups'
cut -d: -f1,3,4 /etc/group
echo '== packages'
dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n'
echo '== units'
if [ -d /run/systemd/system ]; then systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}'; fi
ls /etc/init.d /etc/rc?.d 2>/dev/null || true
echo '== processes'
ps -eo args --no-headers
echo '== images'
if command -v docker >/dev/null; then docker images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' || true; fi
echo '== containers'
if command -v docker >/dev/null; then docker ps --no-trunc --format '{{.Names}} {{.ID}} {{.Image}}' || true; fi
echo '== tables'
if command -v nft >/dev/null; then nft list tables || true; fi
echo '== mounts'
awk '{print $2, $3}' /proc/mounts
echo '== listening'
ss -Hltn | awk '$4 !~ /^127.0.0.11:/ {print $4}'  # that one is the container network's DNS
"""

# Written by the system itself in every minute of its life, or rebuilt from what the other sections list.
VOLATILE = (
    r"/var/log(/|$)",
    r"/var/cache(/|$)",
    r"/var/lib/(apt|dpkg|systemd|urandom|initscripts|logrotate|private)(/|$)",
    r"/var/lib/dbus/machine-id$",
    r"/var/(spool|tmp)(/|$)",
    r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$",
    r"/etc/(passwd|group|shadow|gshadow)$",  # compared as users and groups
    r"/etc/(mtab|ld\.so\.cache|machine-id|\.pwd\.lock|\.updated|adjtime|motd)$",
    r"/var/\.updated$",
    r"/var/lib/containerd/.*\.db$",
)
# How the snapshot itself shows up, and what a kernel, an init system or a dockerd does by itself.
NOISE = (
    r"processes: sshd(-session)?: root@notty",  # the way by which somebody looks, kept open for a minute
    r"processes: (ps|sh|sed|awk|cut|find|xargs|bash|sleep|/bin/sh|sh -c)\b",
    r"processes: \[.*\]$",
    # Health checks of containers every ten seconds, and what the watch of Nomad runs between two naps.
    r"processes: (python3 -m roost\.cli\.healthcheck|/usr/bin/wget --quiet)\b",
    r"processes: (/\S*/)?runc ((--\S+ \S+ )*(exec|state|start|delete)\b|init$)",
    r"processes: journalctl --quiet --unit \S+ --output cat --lines \d+ _COMM=nomad$",
    r"processes: (date (\+%s|-d .* \+\S+)|uname -n|cksum)$",
    r"processes: .*systemd",
    r"processes: .*\bgetty\b",
    r"processes: sshd(-session)?: ",  # a login, such as Ansible's; sshd-session from Debian 13 on
    r"processes: \[sshd(-session)?\] <defunct>$",
    r"mounts: /run/docker/netns/",
    r"mounts: /sys/fs/cgroup/",  # the outer kernel's controllers: whoever mounts one there, a reboot shows it here
)


@dataclass(frozen=True)
class Snapshot:
    """Sections of a host's state: name of the section to its items (a path maps to its kind, owner and content)."""

    sections: Mapping[str, frozenset[str]]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """What two snapshots do not share; empty means that the host is as it was."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        lines = [f"+ {x}" for x in self.added] + [f"- {x}" for x in self.removed] + [f"~ {x}" for x in self.changed]
        return "\n".join(lines[:80]) or "no difference"


def parse(text: str) -> Snapshot:
    """Read what `COLLECT` printed."""
    raw: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("== "):
            current = raw.setdefault(line[3:], [])
        elif line:
            current.append(line)
    files: dict[str, str] = {}
    for line in raw.pop("files", []):
        kind, mode, owner, path, target = line.split("\t", 4)
        files[path] = f"{kind} {mode} {owner} {target}".strip()
    for line in raw.pop("sums", []):
        digest, _, path = line.partition("  ")
        if path in files:
            files[path] += f" {digest}"
    return Snapshot({name: frozenset(items) for name, items in raw.items()}, files)


def compare(
    before: Snapshot, after: Snapshot, *, ignore_paths: Iterable[str] = (), ignore_sections: Iterable[str] = ()
) -> Difference:
    """Say what differs, leaving out what a system does by itself; `ignore_paths` are further regular expressions."""
    volatile = re.compile("|".join((*VOLATILE, *ignore_paths)))
    noise = re.compile("|".join(NOISE))
    added: list[str] = []
    removed: list[str] = []
    for name in sorted({*before.sections, *after.sections} - set(ignore_sections)):
        old = before.sections.get(name, frozenset())
        new = after.sections.get(name, frozenset())
        for item, into in [(i, added) for i in new - old] + [(i, removed) for i in old - new]:
            if not noise.match(line := f"{name}: {item}"):
                into.append(line)
    paths = [p for p in {*before.files, *after.files} if not volatile.search(p)]
    added += [f"file: {p}" for p in paths if p not in before.files]
    removed += [f"file: {p}" for p in paths if p not in after.files]
    changed = [
        f"file: {p}: {before.files[p]} -> {after.files[p]}"
        for p in paths
        if p in before.files and p in after.files and before.files[p] != after.files[p]
    ]
    return Difference(tuple(sorted(added)), tuple(sorted(removed)), tuple(sorted(changed)))
