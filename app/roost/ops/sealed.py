"""Secrets under a passphrase, in the format of ansible-vault, so that its tools read them too.

A sealed file is read wherever a plain one would be; the passphrase comes from ROOST_VAULT_PASSPHRASE_FILE, else
ROOST_VAULT_PASSPHRASE, else from whoever sits at the terminal.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

if TYPE_CHECKING:
    from ansible.parsing.vault import VaultLib

HEAD = b"$ANSIBLE_VAULT;"
FROM_FILE, FROM_ENVIRONMENT = "ROOST_VAULT_PASSPHRASE_FILE", "ROOST_VAULT_PASSPHRASE"
HOW = f"Name a file with the passphrase in {FROM_FILE}, or run it at a terminal."
SHORTEST = 12  # letters; ansible-vault stretches it by 10,000 rounds of PBKDF2
BAD_INPUT = 2


def is_sealed(content: bytes) -> bool:
    """Say whether a file's content is under a passphrase."""
    return content.startswith(HEAD)


def passphrase(environment: Mapping[str, str] | None = None, *, new: bool = False) -> bytes:
    """Return the passphrase. A new one is asked for twice.

    Raises:
        RoostError: there is none and nobody to ask, or it is too short for a new one.
    """
    known = os.environ if environment is None else environment
    if name := known.get(FROM_FILE):
        try:
            found = Path(name).read_text().strip()
        except OSError as error:
            raise RoostError(f"{name} cannot be read: {error.strerror}.", fix=f"Correct {FROM_FILE}.") from None
    elif text := known.get(FROM_ENVIRONMENT):
        found = text
    elif sys.stdin.isatty():
        found = getpass.getpass("Passphrase of the fleet's secrets: ")
        if new and getpass.getpass("Again: ") != found:
            raise RoostError("The two are not the same.", fix="Try again.", exit_code=BAD_INPUT)
        os.environ[FROM_ENVIRONMENT] = found  # asked once; what this program starts needs it too
    else:
        raise RoostError("The fleet's secrets are sealed, and there is no passphrase.", fix=HOW)
    if new and len(found) < SHORTEST:
        raise RoostError(f"The passphrase has fewer than {SHORTEST} letters.", fix="Take a longer one.", exit_code=2)
    return found.encode()


def read_secret(path: Path) -> bytes:
    """Return a secret's content, whether it is sealed or not.

    Raises:
        OSError: it cannot be read.
        RoostError: it is sealed, and the passphrase is missing or wrong.
    """
    content = path.read_bytes()
    return opened(content, passphrase(), str(path)) if is_sealed(content) else content


def opened(content: bytes, phrase: bytes, where: str) -> bytes:
    """Return what is under the passphrase.

    Raises:
        RoostError: the passphrase is wrong, or the content damaged.
    """
    from ansible.errors import AnsibleError

    try:
        plain = _vault(phrase).decrypt(content)
    except AnsibleError:
        raise RoostError(f"The passphrase does not open {where}.", fix=HOW) from None
    return plain


def closed(content: bytes, phrase: bytes) -> bytes:
    """Return the content under the passphrase."""
    return _vault(phrase).encrypt(content)


def seal(path: Path) -> bool:
    """Put a file under the passphrase; return whether it was not yet.

    Raises:
        RoostError: there is no passphrase, or it is too short.
    """
    content = path.read_bytes()
    if is_sealed(content):
        opened(content, passphrase(), str(path))  # one passphrase for all
        return False
    phrase = passphrase(new=True)
    done = closed(content, phrase)
    if opened(done, phrase, str(path)) != content:
        raise RoostError(f"{path} could not be sealed; it is as it was.")
    write_atomic(path, done, mode=0o600)
    return True


def unseal(path: Path) -> bool:
    """Take the passphrase off a file; return whether there was one.

    Raises:
        RoostError: the passphrase is missing or wrong.
    """
    content = path.read_bytes()
    if not is_sealed(content):
        return False
    write_atomic(path, opened(content, passphrase(), str(path)), mode=0o600)
    return True


def _vault(phrase: bytes) -> VaultLib:
    # It takes a second to import, and only sealed secrets need it.
    from ansible.parsing.vault import VaultLib, VaultSecret

    return VaultLib([("default", VaultSecret(phrase))])
