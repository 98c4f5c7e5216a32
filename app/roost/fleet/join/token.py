"""The token that a machine joins with: what it says and how it is written. Pure.

It holds the number and the secret of an entry in the server's list, the SHA-256 of the fleet's authority, by which the
machine knows the server, and the port. The secret is good once and for minutes; nothing else in it is one.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import struct
from dataclasses import dataclass
from hashlib import sha256

from roost.ops.errors import RoostError

PREFIX = "roost-join-"
VERSION = 1
LAYOUT = struct.Struct(">B8s24s32sH")  # version, number, secret, SHA-256 of the authority's DER, port
CHECK = struct.Struct(">I")  # CRC-32 of the above: what was cut off or mistyped is told before anybody is asked
BAD_INPUT = 2


@dataclass(frozen=True)
class Token:
    """A token. `number` is 16 hex digits."""

    number: str
    secret: bytes
    authority: bytes
    port: int

    @classmethod
    def new(cls, authority_der: bytes, port: int) -> Token:
        """Make one for a fleet's authority."""
        return cls(secrets.token_hex(8), secrets.token_bytes(24), sha256(authority_der).digest(), port)

    def __str__(self) -> str:
        """Return it as it is handed over."""
        body = LAYOUT.pack(VERSION, bytes.fromhex(self.number), self.secret, self.authority, self.port)
        return PREFIX + base64.urlsafe_b64encode(body + CHECK.pack(binascii.crc32(body))).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Token:
        """Read what somebody was handed.

        Raises:
            RoostError: it is no token, or not the whole of one; exit code 2.
        """
        word = text.strip()
        try:
            letters = word.removeprefix(PREFIX)
            packed = base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            packed = b""
        body = packed[: LAYOUT.size]
        whole = len(packed) == LAYOUT.size + CHECK.size and packed[LAYOUT.size :] == CHECK.pack(binascii.crc32(body))
        if not word.startswith(PREFIX) or not whole or body[0] != VERSION:
            raise RoostError(
                "This is no join token, or not the whole of one.",
                fix="Copy it again from `roost fleet token`, from roost-join- to its end.",
                exit_code=BAD_INPUT,
            )
        _, number, secret, authority, port = LAYOUT.unpack(body)
        return cls(number.hex(), secret, authority, port)
