"""Root file systems of the disposable hosts, made by debootstrap and kept by a key of what went into them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from roost.fleet.artifacts.store import locked
from tests.hosts.docker import IMAGE_LABEL, DockerError, call, docker

MIRROR = os.environ.get("ROOST_TEST_MIRROR", "")  # empty: debootstrap's default
COMMON = ("ca-certificates", "iproute2", "procps", "sudo")
# Timers that take apt's lock at a random minute or write a backup at midnight, and what debootstrap leaves that a real
# installation has not.
FINISH = """
set -eu
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer; do
    [ ! -d etc/systemd/system ] || ln -sf /dev/null "etc/systemd/system/$unit"
done
rm -f etc/hostname etc/resolv.conf
: >etc/machine-id
rm -f var/cache/apt/archives/*.deb var/log/bootstrap.log
"""


@dataclass(frozen=True)
class Root:
    """A root file system: its name, what debootstrap gets, and a script run in its top folder at the end."""

    name: str
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    suite: str = "bookworm"
    variant: str = "minbase"
    mirror: str = MIRROR
    finish: str = FINISH

    @property
    def key(self) -> str:
        """16 hex digits over everything that decides its content."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def ssh(self) -> bool:
        """Whether it runs an SSH server, as machines of a fleet do."""
        return "openssh-server" in self.include

    @property
    def image(self) -> str:
        """The image it becomes."""
        return f"roost-test/{self.name}:{self.key}"


# A clean Debian 12 with systemd, one with SysV init, and a neighbour on the network that can look and ask.
SYSTEMD = Root("systemd", ("systemd", "systemd-sysv", "dbus", *COMMON))
SYSV = Root("sysv", ("sysvinit-core", "initscripts", *COMMON), exclude=("systemd", "systemd-sysv"))
# One of a fleet: the same with an SSH server, whose host keys are made at the first boot.
FLEET = Root(
    "fleet",
    ("systemd", "systemd-sysv", "dbus", "openssh-server", *COMMON),
    finish=FINISH
    + """
rm -f etc/ssh/ssh_host_*
mkdir -p etc/systemd/system/ssh.service.d
printf '[Service]\\nExecStartPre=\\nExecStartPre=/usr/bin/ssh-keygen -A\\nExecStartPre=/usr/sbin/sshd -t\\n' \\
    >etc/systemd/system/ssh.service.d/keys.conf
""",
)
# The same a release later; of the fleet's for `tests/run full`.
SYSTEMD_13 = replace(SYSTEMD, name="systemd-13", suite="trixie")
FLEET_13 = replace(FLEET, name="fleet-13", suite="trixie")
# One that people log in to: systemd keeps services of theirs.
PEOPLE = replace(SYSTEMD, name="people", include=(*SYSTEMD.include, "libpam-systemd"))
NEIGHBOUR = Root("neighbour", ("python3", "curl", *COMMON))


def debootstrap_argv(root: Root, folder: Path, debs: Path) -> list[str]:
    """The command that fills `folder`; `debs` keeps the downloaded packages between roots."""
    argv = ["unshare", "--mount", "debootstrap", f"--variant={root.variant}", f"--cache-dir={debs}"]
    argv.append(f"--include={','.join(root.include)}")
    if root.exclude:
        argv.append(f"--exclude={','.join(root.exclude)}")
    return [*argv, root.suite, str(folder), *([root.mirror] if root.mirror else [])]


def ensure_image(root: Root, cache: Path) -> str:
    """Return the image of `root` in the dockerd of $DOCKER_HOST, making what is missing: root, tar, image.

    Suites run side by side: one makes it, the others wait and find it.

    Raises:
        DockerError: a step failed; the message has the end of what it printed.
    """
    with locked(cache / "roots", "make"):
        if not docker("images", "--quiet", root.image):
            _make_image(root, cache)
    return root.image


def ensure_tar(root: Root, cache: Path) -> Path:
    """Return the packed root file system, making it if it is not there."""
    with locked(cache / "roots", "make"):
        return _tar_of(root, cache)


def _tar_of(root: Root, cache: Path) -> Path:
    tar = cache / "roots" / f"{root.name}-{root.key}.tar"
    if not tar.exists():
        _make_tar(root, cache, tar)
    for stale in tar.parent.glob(f"{root.name}-????????????????.tar"):
        if stale != tar:
            stale.unlink()
    return tar


def _make_image(root: Root, cache: Path) -> None:
    tar = _tar_of(root, cache)
    docker("import", "--change", f"LABEL {IMAGE_LABEL}={root.name}", str(tar), root.image)


def _make_tar(root: Root, cache: Path, tar: Path) -> None:
    debs = cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=tar.parent, prefix=f".{root.name}."))
    try:
        part = tar.with_suffix(".part")
        _step(debootstrap_argv(root, folder, debs))
        _step(["sh", "-c", f"cd '{folder}'\n{root.finish}"])
        _step(["tar", "--one-file-system", "--numeric-owner", "-C", str(folder), "-cf", str(part), "."])
        part.replace(tar)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _step(argv: list[str]) -> None:
    done = call(argv, timeout_s=1200)
    if done.code != 0:
        tail = "\n".join(done.text.splitlines()[-20:])
        raise DockerError(f"{argv[0]}: exit code {done.code}\n{tail}")
