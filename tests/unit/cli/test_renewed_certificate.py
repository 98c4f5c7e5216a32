"""A certificate that is renewed is used without a restart, and one that cannot be used changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from starlette.responses import PlainTextResponse
from structlog.testing import capture_logs

from roost.cli.serve_listen import Certificate, Listener, keep_certificates, make_server, open_socket
from roost.gateway.settings import Settings
from roost.ops import pki
from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.net import eventually

Served = tuple[int, Path]
Told = list[float]


def renew(folder: Path, name: str) -> None:
    """Have the authority issue another certificate for a machine, in place of the one that is there."""
    ensure_pki(folder, [LeafSpec("api", (name, "127.0.0.1"))])


@pytest.fixture
def told() -> Told:
    """What was said of the end of the certificate in use."""
    return []


@pytest.fixture
async def served(tmp_path: Path, told: Told) -> AsyncIterator[Served]:
    """Serve with TLS, looking at the files often; the port, and the folder of the certificate."""
    renew(tmp_path, "first")
    settings = Settings.model_validate({"tls_cert": tmp_path / "api.pem", "tls_key": tmp_path / "api-key.pem"})
    listener = Listener("127.0.0.1", 0, tls=True)
    sock = open_socket(listener)
    server = make_server(PlainTextResponse("here"), listener, settings)
    tasks = [
        asyncio.create_task(server.serve(sockets=[sock])),
        asyncio.create_task(keep_certificates([server], settings, told.append, every_s=0.02)),
    ]
    try:
        yield sock.getsockname()[1], tmp_path
    finally:
        server.should_exit = True
        await tasks[0]
        tasks[1].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tasks[1]


async def shown(served: Served) -> str:
    """Return the first name in the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(served[1] / "ca.pem"))
    _, writer = await asyncio.open_connection("127.0.0.1", served[0], ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    await writer.wait_closed()
    return str(certificate["subjectAltName"][0][1])


async def test_new_connections_see_the_new_one_and_open_ones_go_on(served: Served) -> None:
    context = ssl.create_default_context(cafile=str(served[1] / "ca.pem"))
    reader, writer = await asyncio.open_connection("127.0.0.1", served[0], ssl=context)
    assert await shown(served) == "first"
    renew(served[1], "second")

    async def renewed() -> bool:
        return await shown(served) == "second"

    await eventually(renewed, 10, "the new certificate")
    writer.write(b"GET / HTTP/1.1\r\nHost: first\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"here")
    writer.close()


async def test_the_end_of_the_one_in_use_is_told_at_once_and_when_it_is_renewed(
    served: Served, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    await eventually(lambda: told == [ends(served[1])], 10, "the end of the first")
    monkeypatch.setattr(pki, "LEAF_DAYS", pki.LEAF_DAYS + 100)
    renew(served[1], "second")
    second = ends(served[1])
    await eventually(lambda: told[1:] != [], 10, "the end of the second")
    assert told[-1] == second > told[0]


def ends(folder: Path) -> float:
    return x509.load_pem_x509_certificate((folder / "api.pem").read_bytes()).not_valid_after_utc.timestamp()


async def test_a_fault_while_it_looks_is_logged_and_does_not_keep_a_later_one_from_being_used(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, faults = Certificate.refresh, iter(["a fault of ours"])

    def refresh(certificate: Certificate) -> bool:
        if fault := next(faults, ""):
            raise ValueError(fault)
        return real(certificate)

    with capture_logs() as logs:
        monkeypatch.setattr(Certificate, "refresh", refresh)
        renew(served[1], "second")

        async def renewed() -> bool:
            return await shown(served) == "second"

        await eventually(renewed, 10, "the new certificate")
    assert [one["event"] for one in logs if one["log_level"] == "critical"] == ["certificate_not_looked_at"]


def test_files_that_are_just_being_replaced_are_used_when_they_are_there(tmp_path: Path) -> None:
    renew(tmp_path, "first")
    cert, key, away = tmp_path / "api.pem", tmp_path / "api-key.pem", tmp_path / "away"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    cert.rename(away)
    certificate = Certificate(context, cert, key)
    assert certificate.refresh() is False
    away.rename(cert)
    assert certificate.refresh() is True
    assert certificate.refresh() is False


def test_a_pair_that_does_not_belong_together_is_not_taken(tmp_path: Path) -> None:
    renew(tmp_path, "first")
    cert, key, other = tmp_path / "api.pem", tmp_path / "api-key.pem", tmp_path / "other"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    watched = Certificate(context, cert, key)
    assert not watched.refresh()
    other.mkdir()
    renew(other, "second")
    # One of both comes first: OpenSSL forgets a key that is not the new certificate's.
    shutil.copyfile(other / "api.pem", cert)
    assert not watched.refresh()
    assert in_use(context, tmp_path / "ca.pem") == "first"
    key.unlink()
    assert not watched.refresh(), "not even a file is there"
    shutil.copyfile(other / "api-key.pem", key)
    assert watched.refresh()
    assert in_use(context, other / "ca.pem") == "second"
    assert not watched.refresh()


def in_use(server: ssl.SSLContext, ca: Path) -> str:
    """Return the first name in the certificate of a context, by a handshake in memory."""
    client = ssl.create_default_context(cafile=str(ca))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(down, up, server_hostname="127.0.0.1")
    answers = server.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (asks, answers):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    certificate = asks.getpeercert(binary_form=True)
    assert certificate is not None
    names = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return str(names.value.get_values_for_type(x509.DNSName)[0])
