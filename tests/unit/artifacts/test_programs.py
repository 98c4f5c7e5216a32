"""What apt, docker and pip print, read and explained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roost.fleet.artifacts import apt, docker, wheels
from roost.fleet.artifacts.apt import Source, is_released, parse_uris
from roost.fleet.artifacts.base import mounts_below
from roost.fleet.artifacts.docker import parse_images
from roost.fleet.artifacts.engine import engine_command, layout
from roost.ops.errors import RoostError
from roost.ops.pki import ensure_pki
from roost.ops.trust import write_trust

HASH = "a" * 64
SOURCES = [
    Source("http://m.example/debian", "bookworm"),
    Source("http://m.example/debian-security", "bookworm-security"),
]


def test_apts_list_of_files_is_read() -> None:
    lines = [
        f"'http://m.example/debian/pool/z/zlib1g_1.3%2bx_amd64.deb' zlib1g_1%3a1.3+x_amd64.deb 90 SHA256:{HASH}",
        f"'http://m.example/debian-security/pool/o/openssl_3_amd64.deb' openssl_3_amd64.deb 7 SHA256:{HASH}",
        "Reading package lists...",
    ]
    openssl, zlib = parse_uris("\n".join(lines), SOURCES)
    assert (zlib.name, zlib.version, zlib.arch, zlib.suite) == ("zlib1g", "1:1.3+x", "amd64", "bookworm")
    assert zlib.deb == "zlib1g_1%3a1.3+x_amd64.deb"
    assert zlib.filename == "pool/z/zlib1g_1.3%2bx_amd64.deb"
    assert openssl.suite == "bookworm-security"


def test_a_file_from_elsewhere_is_refused() -> None:
    with pytest.raises(RoostError, match="none of the given archives"):
        parse_uris(f"'http://other.example/x_1_all.deb' x_1_all.deb 1 SHA256:{HASH}", SOURCES)


def test_only_a_testing_suite_may_be_older_than_it_says(tmp_path: Path) -> None:
    (tmp_path / "debian-archive-bookworm-stable.gpg").touch()
    assert is_released("bookworm", tmp_path)
    assert not is_released("forky", tmp_path)
    assert "check-valid-until=no" in Source("http://m", "forky", any_age=True).line()
    assert "check-valid-until" not in Source("http://m", "bookworm").line()


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("E: Failed to fetch http://m: Could not resolve 'm'", "--offline"),
        ("Certificate verification failed: The certificate is NOT trusted.", "extra_ca_bundle"),
        ("E: Unable to locate package nothing-such", "engine_packages"),
        ("E: NO_PUBKEY 1234", "debian-archive-keyring"),
        ("write: No space left on device", "Free disk space"),
    ],
)
def test_apts_failures_say_what_to_do(words: str, fix: str) -> None:
    assert fix in apt.explain(RoostError(words), "It failed").fix


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", "DOCKER_HOST"),
        ("write /var/lib/docker/x: no space left on device", "images gc"),
        ("permission denied while trying to connect to the docker API at unix:///var/run/docker.sock", "root"),
    ],
)
def test_dockers_failures_say_what_to_do(words: str, fix: str) -> None:
    assert fix in docker.explain(RoostError(words)).fix


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("SSLError(SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED)", "extra_ca_bundle"),
        ("NewConnectionError: Connection refused", "--offline"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES", "mirror"),
    ],
)
def test_pips_failures_say_what_to_do(words: str, fix: str) -> None:
    assert fix in wheels.explain(RoostError(words)).fix


def test_only_our_tagged_images_are_listed() -> None:
    rows = [
        ("roost/agent", "abc"),
        ("roost/agent", "<none>"),
        ("<none>", "<none>"),
        ("other/agent", "1"),
        ("base", "1"),
    ]
    lines = [json.dumps({"Repository": r, "Tag": t, "ID": "i", "CreatedAt": "2026", "Size": "1MB"}) for r, t in rows]
    assert [image.reference for image in parse_images("\n".join(lines))] == ["roost/agent:abc"]


def test_mounts_below_a_folder_are_found_the_deepest_first() -> None:
    table = (
        "proc /proc proc rw 0 0\nproc /x/root/proc proc rw 0 0\nb /x/root/proc/b\\040c b rw 0 0\ns /x/rooted s rw 0 0\n"
    )
    assert mounts_below(Path("/x/root"), table) == [Path("/x/root/proc/b c"), Path("/x/root/proc")]


def test_requirements_are_read_for_another_python() -> None:
    old = "a==1 ; python_full_version < '3.12' \\\n    --hash=sha256:aa\n"
    new = "b==2 ; python_version >= '3.12' \\\n    --hash=sha256:bb\n"
    every = "c==3 \\\n    --hash=sha256:cc\n"
    assert wheels.for_python(old + new + every, "3.11") == "a==1 \\\n    --hash=sha256:aa\n" + every
    assert wheels.for_python(old + new + every, "3.13") == "b==2 \\\n    --hash=sha256:bb\n" + every


def test_a_folder_without_an_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="no llama-server"):
        layout(tmp_path)
    argv, folder = engine_command(tmp_path / "engine-unresolved")
    assert argv[-1].endswith("usr/bin/llama-server")
    assert folder.name.startswith("backends")


def test_a_proxys_ca_is_trusted_beside_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ensure_pki(tmp_path / name, [], dry_run=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "one/ca.pem"))
    trusted = write_trust(tmp_path / "two/ca.pem", tmp_path / "out.pem").read_text()
    assert (tmp_path / "one/ca.pem").read_text().strip() in trusted
    assert (tmp_path / "two/ca.pem").read_text().strip() in trusted


def test_a_ca_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing\n")
    with pytest.raises(RoostError, match="extra_ca_bundle"):
        write_trust(tmp_path / "ca.pem", tmp_path / "out.pem")
    with pytest.raises(RoostError, match="cannot be used"):
        write_trust(tmp_path / "none.pem", tmp_path / "out.pem")
