"""The way from the controller to a machine that joined: a key of the fleet's own, and known host keys.

Nothing of root's own SSH settings is used or changed on the controller; on the machine one marked line is added.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

KEY, KNOWN = "fleet-ssh-key", "fleet-known-hosts"
MARK = "roost-fleet"  # bootstrap.sh takes lines that end so away when Roost goes
HOST_KEYS = "ssh_host_*_key.pub"


@dataclass(frozen=True)
class Controller:
    """The controller's side; `folder` is that of the fleet's secrets."""

    folder: Path

    def public_key(self) -> str:
        """Return the fleet's public key, made at the first call."""
        path = self.folder / KEY
        if not path.exists():
            key = ed25519.Ed25519PrivateKey.generate()
            private = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
            write_atomic(path, private, mode=0o600)
        loaded = serialization.load_ssh_private_key(path.read_bytes(), password=None)
        public = loaded.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        return public.decode()

    def know(self, address: str, host_keys: Iterable[str]) -> None:
        """Write down the host keys of a machine in place of those it had."""
        path = self.folder / KNOWN
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if line.split(" ", 1)[0] != address]
        write_atomic(path, "".join(f"{line}\n" for line in [*kept, *(f"{address} {k}" for k in host_keys)]), mode=0o600)

    def variables(self) -> dict[str, str]:
        """Return what the inventory says of the connection to such a machine."""
        return {
            "ansible_ssh_private_key_file": str(self.folder / KEY),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.folder / KNOWN} -o StrictHostKeyChecking=yes",
        }


def host_keys(folder: Path = Path("/etc/ssh")) -> list[str]:
    """Return this machine's host keys, as SSH clients get to see them, without comments.

    Raises:
        RoostError: there is no SSH server here.
    """
    found = [" ".join(path.read_text().split()[:2]) for path in sorted(folder.glob(HOST_KEYS))]
    if not found:
        raise RoostError(
            "There is no SSH server on this machine; a fleet is set up and updated over SSH.",
            fix="apt-get install openssh-server, then join again with the same token.",
        )
    return found


def admit(public_key: str, addresses: Sequence[str], home: Path = Path("/root")) -> None:
    """Let the fleet's key log in here as this user, from these addresses alone, without forwarding."""
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "authorized_keys"
    text = path.read_text() if path.exists() else ""
    lines = [line for line in text.splitlines() if not line.endswith(f" {MARK}")]
    # Ansible asks for a terminal where it hands no input over, and is refused the command without one.
    lines.append(f'restrict,pty,from="{",".join(addresses)}" {public_key} {MARK}')
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    write_atomic(path, "\n".join(lines) + "\n", mode=mode)
    if path.stat().st_uid != os.geteuid():
        raise RoostError(f"{path} belongs to somebody else.", fix=f"chown root {path}, then join again.")
