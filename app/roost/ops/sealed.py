"""Secrets under a passphrase, in the format of ansible-vault, so that its tools read them too.

The format is written here, since it is read inside Ansible's modules too, and the `ansible` there is not the whole one:
https://docs.ansible.com/ansible/latest/vault_guide/vault_using_encrypted_content.html#format-of-files-encrypted-with-ansible-vault
A sealed file is read wherever a plain one would be; the passphrase comes from ROOST_VAULT_PASSPHRASE_FILE, else
ROOST_VAULT_PASSPHRASE, else from whoever sits at the terminal.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import os
import sys
from binascii import hexlify, unhexlify
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

HEAD, CIPHER = b"$ANSIBLE_VAULT;", b"AES256"
ROUNDS = 10_000  # of PBKDF2
KEY, BLOCK, SALT, WIDTH = 32, 16, 32, 80  # bytes, and letters of a line
FROM_FILE, FROM_ENVIRONMENT = "ROOST_VAULT_PASSPHRASE_FILE", "ROOST_VAULT_PASSPHRASE"
HOW = f"Name a file with the passphrase in {FROM_FILE}, or run it at a terminal."
SHORTEST = 12  # letters
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
    try:
        head, *lines = content.split()
        salt, proof, hidden = map(unhexlify, unhexlify(b"".join(lines)).split(b"\n"))
        cipher = head.split(b";")[2]
    except (ValueError, IndexError):
        cipher = salt = proof = hidden = b""
    key, proving, start = _keys(phrase, salt)
    if cipher != CIPHER or not hmac.compare_digest(hmac.digest(proving, hidden, "sha256"), proof):
        raise RoostError(f"The passphrase does not open {where}.", fix=HOW)
    padded = _stream(key, start).update(hidden)
    return padded[: -padded[-1]]


def closed(content: bytes, phrase: bytes) -> bytes:
    """Return the content under the passphrase."""
    salt = os.urandom(SALT)
    key, proving, start = _keys(phrase, salt)
    missing = BLOCK - len(content) % BLOCK
    hidden = _stream(key, start).update(content + bytes([missing]) * missing)
    parts = (salt, hmac.digest(proving, hidden, "sha256"), hidden)
    body = hexlify(b"\n".join(map(hexlify, parts)))
    lines = [body[begin : begin + WIDTH] for begin in range(0, len(body), WIDTH)]
    return b"\n".join([HEAD + b"1.1;" + CIPHER, *lines, b""])


def _keys(phrase: bytes, salt: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the key of the cipher, the one of the proof, and where the cipher's counter begins."""
    made = hashlib.pbkdf2_hmac("sha256", phrase, salt, ROUNDS, 2 * KEY + BLOCK)
    return made[:KEY], made[KEY : 2 * KEY], made[2 * KEY :]


def _stream(key: bytes, start: bytes) -> CipherContext:
    # The agent imports this room, and has neither sealed secrets nor this package.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES256(key), modes.CTR(start)).encryptor()  # the same both ways


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
