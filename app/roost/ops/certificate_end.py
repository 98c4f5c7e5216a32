"""When a certificate ends, by the standard library alone: the agent's image has no library for certificates.

Python's `ssl` says it only of a peer whose certificate it trusts, so the few fields before it are stepped over in DER
(RFC 5280, 4.1).
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

VERSION = 0xA0
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
LONG_FORM = 0x80  # of a length: the other bits say how many bytes it has
LAST_OF_1900 = 50  # a year of two digits from this on is of the last century
AS_WRITTEN = "%Y%m%d%H%M%SZ"


def end_of(pem: str) -> float:
    """Return when the first certificate in a PEM text ends, in seconds since 1970.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    begin = pem.find(ssl.PEM_HEADER)
    end = pem.find(ssl.PEM_FOOTER, begin)
    if begin < 0 or end < 0:
        raise ValueError("there is no certificate in it")
    try:
        return _end(ssl.PEM_cert_to_DER_cert(pem[begin : end + len(ssl.PEM_FOOTER)]))
    except IndexError:
        raise ValueError("the certificate is cut off") from None


def _end(der: bytes) -> float:
    _, certificate, _ = _element(der, 0)
    _, at, _ = _element(der, certificate)
    tag, _, after = _element(der, at)
    if tag == VERSION:
        at = after
    for _ in ("serial number", "algorithm", "issuer"):
        _, _, at = _element(der, at)
    _, begins, _ = _element(der, at)
    _, _, ends = _element(der, begins)
    tag, start, stop = _element(der, ends)
    text = der[start:stop].decode("ascii")
    if tag == UTC_TIME:
        text = ("19" if int(text[:2]) >= LAST_OF_1900 else "20") + text
    elif tag != GENERALIZED_TIME:
        raise ValueError("the certificate has no time where its end should be")
    return datetime.strptime(text, AS_WRITTEN).replace(tzinfo=UTC).timestamp()


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return an element's tag, where its content begins, and where it ends.

    Raises:
        IndexError: the text ends before it.
    """
    size, start = der[at + 1], at + 2
    if size & LONG_FORM:
        long = size & ~LONG_FORM
        size, start = int.from_bytes(der[start : start + long]), start + long
    if start + size > len(der):
        raise IndexError(at)
    return der[at], start, start + size
