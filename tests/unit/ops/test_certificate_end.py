"""When a certificate ends, read without a library: it is what the library for it says."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from roost.ops.certificate_end import end_of
from roost.ops.pki import LeafSpec, ensure_pki

KEY = ec.generate_private_key(ec.SECP256R1())
BEGIN = dt.datetime(1951, 1, 1)  # noqa: DTZ001 (without a zone, as the library takes it)
ENDS = st.datetimes(dt.datetime(1951, 1, 2), dt.datetime(9999, 12, 31)).map(lambda end: end.replace(microsecond=0))  # noqa: DTZ001


def certificate(end: dt.datetime, name: str = "roost.test", serial: int = 1) -> str:
    called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(BEGIN)
        .not_valid_after(end)
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


@given(ENDS, st.text("abc", min_size=1, max_size=64), st.integers(1, 1 << 158))
def test_it_is_what_the_library_reads(end: dt.datetime, name: str, serial: int) -> None:
    assert end_of(certificate(end, name, serial)) == end.replace(tzinfo=dt.UTC).timestamp()


# Up to 2049 a year has two digits in it, beyond that four (RFC 5280, 4.1.2.5).
@pytest.mark.parametrize("year", [1968, 1969, 1999, 2049, 2050, 2068, 2069])
def test_years_are_told_apart(year: int) -> None:
    end = dt.datetime(year, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    assert end_of(certificate(end.replace(tzinfo=None))) == end.timestamp()


def test_of_a_chain_it_is_the_first_one(tmp_path: Path) -> None:
    ensure_pki(tmp_path, [LeafSpec("api", ("roost.test",))])
    leaf, authority = (tmp_path / "api.pem").read_text(), (tmp_path / "ca.pem").read_text()
    ends = x509.load_pem_x509_certificate(leaf.encode()).not_valid_after_utc.timestamp()
    assert end_of(f"subject=roost\n{leaf}{authority}") == ends
    assert end_of(authority) > ends


@pytest.mark.parametrize("cut", range(0, 340, 7))
def test_what_is_no_certificate_is_refused(cut: int) -> None:
    body = certificate(dt.datetime(2030, 1, 1)).splitlines()[1:-1]  # noqa: DTZ001
    whole = "".join(body)
    text = whole[: cut // 4 * 4]
    assert len(text) < len(whole)
    with pytest.raises(ValueError, match="cut off"):
        end_of(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match="no certificate"):
        end_of(text)
