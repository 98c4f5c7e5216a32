"""An API key kept so that neither the server's disk nor the browser's cookie alone gives it away.

The cookie holds a token of 256 random bits. The server keeps the token's SHA-256 and the key, XORed with a pad that
SHAKE-256 makes of the token. A token is made for one key, so a pad is used once, as a one-time pad must be; what was
altered is found by the keyed BLAKE2b beside it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

TOKEN_BYTES = 32
MAC_BYTES = 32
# One word a purpose, so that nothing that is known of one value says something of another.
PAD, NAME, FORM = b"roost web pad\0", b"roost web session\0", b"roost web form\0"


def new_token() -> str:
    """Return what a session's cookie holds."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def name_of(token: str) -> str:
    """Return what the server keeps of a token, in hex."""
    return hashlib.sha256(NAME + token.encode()).hexdigest()


def form_token_of(token: str) -> str:
    """Return what the page must send beside the cookie to change anything: another site cannot read it."""
    return hashlib.sha256(FORM + token.encode()).hexdigest()


def seal(token: str, secret: str) -> str:
    """Return the secret as the server keeps it."""
    plain = secret.encode()
    pad = _pad(token, len(plain))
    hidden = bytes(a ^ b for a, b in zip(plain, pad[MAC_BYTES:], strict=True))
    return base64.b64encode(_mac(pad, hidden) + hidden).decode()


def unseal(token: str, sealed: str) -> str:
    """Return the secret.

    Raises:
        ValueError: the token is another one, or what was kept is damaged.
    """
    data = base64.b64decode(sealed, validate=True)
    mac, hidden = data[:MAC_BYTES], data[MAC_BYTES:]
    pad = _pad(token, len(hidden))
    if not hmac.compare_digest(mac, _mac(pad, hidden)):
        raise ValueError("this token does not open it")
    return bytes(a ^ b for a, b in zip(hidden, pad[MAC_BYTES:], strict=True)).decode()


def _pad(token: str, length: int) -> bytes:
    return hashlib.shake_256(PAD + token.encode()).digest(MAC_BYTES + length)


def _mac(pad: bytes, hidden: bytes) -> bytes:
    return hashlib.blake2b(hidden, key=pad[:MAC_BYTES], digest_size=MAC_BYTES).digest()
