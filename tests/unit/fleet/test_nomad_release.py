"""The release as a source: only what the pinned key signed gets in, whatever the server or the network does."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from roost.fleet import nomad_release
from roost.fleet.nomad_binary import NomadRequest, ensure_nomad, nomad_version
from roost.ops import fetch, pki
from roost.ops.errors import RoostError
from tests.support.releases import (
    ARCHIVE,
    SUMS,
    VERSION,
    ReleaseServer,
    Signer,
    pretended_nomad,
    request_in,
    serving,
    zipped,
)

pytestmark = pytest.mark.usefixtures("bare_machine")


@pytest.fixture
def request_(tmp_path: Path, server: ReleaseServer, vendor: Signer) -> NomadRequest:
    """Return a request that only the server's good release can fulfil."""
    server.publish(vendor, pretended_nomad(padding=400_000))
    return request_in(tmp_path, "release", server=server, fingerprint=vendor.fingerprint)


def refused(request: NomadRequest) -> str:
    """Return the error's text; nothing may have become visible, neither installed nor in the cache."""
    with pytest.raises(RoostError) as caught:
        ensure_nomad(request)
    assert not request.program.exists()
    assert not request.link.is_symlink()
    assert [p for p in (request.cache_dir / "nomad").rglob("nomad") if p.is_file()] == []
    return str(caught.value)


def test_good_release_is_installed_linked_and_cached(request_: NomadRequest) -> None:
    lines: list[str] = []
    done = ensure_nomad(request_, lines.append)
    assert (done.changed, done.source, done.version) == (True, "release", VERSION)
    assert request_.link.resolve() == request_.program == done.path
    assert nomad_version(request_.link) == VERSION
    assert done.sha256 == hashlib.sha256(request_.program.read_bytes()).hexdigest()
    assert lines[-1] == f"Installed Nomad {VERSION} from release"
    # The cache alone is now enough.
    other = replace(request_, install_dir=request_.install_dir.with_name("other"), sources=("cache",))
    assert ensure_nomad(other).sha256 == done.sha256


def test_second_call_asks_nothing(request_: NomadRequest, server: ReleaseServer) -> None:
    first = ensure_nomad(request_)
    server.asked.clear()
    assert ensure_nomad(request_) == replace(first, changed=False)
    assert server.asked == []


def test_spaces_and_case_of_the_pinned_fingerprint_do_not_matter(request_: NomadRequest, vendor: Signer) -> None:
    spaced = " ".join([vendor.fingerprint[:20].lower(), vendor.fingerprint[20:]])
    assert ensure_nomad(replace(request_, release_key_fingerprint=spaced)).source == "release"


def test_key_of_another_vendor_is_refused(request_: NomadRequest, server: ReleaseServer, stranger: Signer) -> None:
    server.publish(stranger, pretended_nomad())
    text = refused(request_)
    assert f"signed by {stranger.fingerprint}, not by the pinned key {request_.release_key_fingerprint}" in text
    assert "Do not use this download." in text


def test_pinned_key_beside_the_strangers_does_not_help(
    request_: NomadRequest, server: ReleaseServer, vendor: Signer, stranger: Signer
) -> None:
    server.publish(stranger, pretended_nomad())
    server.files["/key.txt"] = vendor.public(armour=False) + stranger.public(armour=False)
    assert "not by the pinned key" in refused(request_)


def test_strangers_key_as_subkey_of_the_pinned_one_is_refused(
    request_: NomadRequest, server: ReleaseServer, vendor: Signer, stranger: Signer
) -> None:
    server.publish(stranger, pretended_nomad())
    packet = stranger.public(armour=False)
    assert packet[0] == 0x98  # old format, public key, one byte of length
    subkey = bytes([0xB8]) + packet[1 : 2 + packet[1]]  # the same key, called a subkey: bound by no signature
    server.files["/key.txt"] = vendor.public(armour=False) + subkey
    assert "cannot be verified" in refused(request_)


def test_signature_by_a_key_that_is_not_delivered(
    request_: NomadRequest, server: ReleaseServer, stranger: Signer
) -> None:
    server.files["/key.txt"] = stranger.public()
    assert "signed by a key that is not in the vendor's key file" in refused(request_)


def test_changed_checksums_are_refused(request_: NomadRequest, server: ReleaseServer) -> None:
    evil = zipped(pretended_nomad() + b"# evil\n")
    server.put(ARCHIVE, evil)
    server.put(SUMS, f"{hashlib.sha256(evil).hexdigest()}  {ARCHIVE}\n".encode())
    assert "The signature does not fit the checksums" in refused(request_)


def test_changed_archive_is_refused_and_not_kept(request_: NomadRequest, server: ReleaseServer) -> None:
    server.put(ARCHIVE, zipped(pretended_nomad() + b"# evil\n"))
    text = refused(request_)
    assert f"{nomad_release_partial(request_).name} has the SHA-256" in text
    assert "the signed checksums say" in text
    assert not nomad_release_partial(request_).exists()


def nomad_release_partial(request: NomadRequest) -> Path:
    """Return where the archive grows."""
    return request.cache_dir / "nomad" / f".partial-{ARCHIVE}"


def test_missing_signature_is_refused(request_: NomadRequest, server: ReleaseServer) -> None:
    server.drop(f"{SUMS}.sig")
    text = refused(request_)
    assert f"{SUMS}.sig answered 404" in text
    assert server.asked_for(ARCHIVE) == []  # nothing large is downloaded in vain


@pytest.mark.parametrize("junk", [b"", b"not a signature", b"\x00" * 64])
def test_signature_that_is_none_is_refused(request_: NomadRequest, server: ReleaseServer, junk: bytes) -> None:
    server.put(f"{SUMS}.sig", junk)
    assert "cannot be verified" in refused(request_)


@pytest.mark.parametrize(
    "key",
    [b"", b"<html>404</html>", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!\n-----END PGP PUBLIC KEY BLOCK-----\n"],
)
def test_key_file_that_is_none_is_refused(request_: NomadRequest, server: ReleaseServer, key: bytes) -> None:
    server.files["/key.txt"] = key
    assert "Fix:" in refused(request_)


def test_page_around_the_key_does_not_matter(request_: NomadRequest, server: ReleaseServer) -> None:
    server.files["/key.txt"] = b"Our key:\r\n\r\n" + server.files["/key.txt"].replace(b"\n", b"\r\n") + b"\r\nBye\r\n"
    assert ensure_nomad(request_).source == "release"


@pytest.mark.parametrize("fingerprint", ["", "34365D9472D7468F", "Z" * 40])
def test_fingerprint_must_be_a_whole_one(request_: NomadRequest, fingerprint: str) -> None:
    assert "is not a fingerprint of 40 hex digits" in refused(replace(request_, release_key_fingerprint=fingerprint))


def test_archive_that_the_checksums_do_not_list(request_: NomadRequest, server: ReleaseServer, vendor: Signer) -> None:
    sums = b"0" * 64 + b"  nomad_1.11.3_windows_amd64.zip\n"
    server.put(SUMS, sums)
    server.put(f"{SUMS}.sig", vendor.sign(sums))
    assert f"does not list {ARCHIVE}" in refused(request_)


def test_archive_without_the_program(request_: NomadRequest, server: ReleaseServer, vendor: Signer) -> None:
    server.publish(vendor, b"")
    archive = b"PK not really"
    sums = f"{hashlib.sha256(archive).hexdigest()}  {ARCHIVE}\n".encode()
    server.put(ARCHIVE, archive)
    server.put(SUMS, sums)
    server.put(f"{SUMS}.sig", vendor.sign(sums))
    assert "holds no program" in refused(request_)


def test_program_of_another_version_is_refused(request_: NomadRequest, server: ReleaseServer, vendor: Signer) -> None:
    server.publish(vendor, pretended_nomad("1.11.4"))
    assert "delivered Nomad 1.11.4 instead of 1.11.3" in refused(request_)


def test_broken_download_goes_on_where_it_broke(request_: NomadRequest, server: ReleaseServer) -> None:
    server.cut(ARCHIVE, 100_000)
    server.cut(ARCHIVE, 50_000)
    lines: list[str] = []
    assert ensure_nomad(request_, lines.append).source == "release"
    assert server.asked_for(ARCHIVE) == ["", "bytes=100000-", "bytes=150000-"]
    assert any("going on from there" in line for line in lines)


def test_next_call_goes_on_where_the_last_one_gave_up(request_: NomadRequest, server: ReleaseServer) -> None:
    server.cut(ARCHIVE, 100_000)
    for _ in range(fetch.FRUITLESS_ATTEMPTS):
        server.cut(ARCHIVE, 0)
    assert "could not be reached" in refused(request_)
    assert nomad_release_partial(request_).stat().st_size == 100_000
    server.asked.clear()
    assert ensure_nomad(request_).source == "release"
    assert server.asked_for(ARCHIVE) == ["bytes=100000-"]
    assert not nomad_release_partial(request_).exists()


def test_rest_of_another_archive_is_thrown_away(request_: NomadRequest, server: ReleaseServer) -> None:
    nomad_release_partial(request_).parent.mkdir(parents=True)
    nomad_release_partial(request_).write_bytes(b"z" * 1000)
    lines: list[str] = []
    assert ensure_nomad(request_, lines.append).source == "release"
    assert server.asked_for(ARCHIVE) == ["bytes=1000-", ""]
    assert "What an earlier download left does not fit; downloading again from the start" in lines


@pytest.mark.parametrize("extra", [0, 7])
def test_whole_or_overlong_rest(request_: NomadRequest, server: ReleaseServer, extra: int) -> None:
    whole = server.files[f"/nomad/{VERSION}/{ARCHIVE}"]
    nomad_release_partial(request_).parent.mkdir(parents=True)
    nomad_release_partial(request_).write_bytes(whole + b"z" * extra)
    assert ensure_nomad(request_).source == "release"


def test_server_that_cannot_resume_sends_all_again(request_: NomadRequest, server: ReleaseServer) -> None:
    server.ranges = False
    server.cut(ARCHIVE, 100_000)
    assert ensure_nomad(request_).source == "release"


def test_archive_above_the_limit_is_refused(request_: NomadRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nomad_release, "ARCHIVE_LIMIT", 1000)
    assert "is larger than" in refused(request_)


def test_gpgv_missing_says_what_to_install(
    request_: NomadRequest, bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(bare_machine))
    assert "apt-get install gpgv" in refused(request_)


def test_tls_is_verified_and_a_companys_ca_is_honoured(tmp_path: Path, vendor: Signer) -> None:
    (tmp_path / "tls").mkdir()
    pki.ensure_pki(tmp_path / "tls", [pki.LeafSpec("web", ("localhost",))])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls/web.pem", tmp_path / "tls/web-key.pem")
    with serving(context) as server:
        server.publish(vendor, pretended_nomad())
        request = request_in(tmp_path, "release", server=server, fingerprint=vendor.fingerprint)
        text = refused(request)
        assert "certificate of localhost" in text
        assert "extra_ca_bundle" in text
        assert "cannot be used" in refused(replace(request, extra_ca_bundle=tmp_path / "nothing.pem"))
        assert ensure_nomad(replace(request, extra_ca_bundle=tmp_path / "tls/ca.pem")).source == "release"


def test_proxy_of_the_environment_is_used(
    tmp_path: Path, server: ReleaseServer, vendor: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.publish(vendor, pretended_nomad())
    # A proxy is asked for whole addresses; this one knows those of a server that does not exist.
    server.files.update({f"http://releases.invalid{path}": content for path, content in server.files.items()})
    monkeypatch.setenv("http_proxy", server.base)
    request = request_in(tmp_path, "release", server=server, fingerprint=vendor.fingerprint)
    hidden = replace(
        request, release_url="http://releases.invalid/nomad", release_key_url="http://releases.invalid/key.txt"
    )
    assert ensure_nomad(hidden).source == "release"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://localhost/nomad", "nomad"])
def test_only_http_addresses_are_opened(request_: NomadRequest, url: str) -> None:
    assert "neither an http nor an https address" in refused(replace(request_, release_url=url))
