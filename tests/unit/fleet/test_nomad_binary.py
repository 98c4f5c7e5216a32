"""The Nomad program: order of the sources, the cache, the offline folder, and nothing half done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roost.fleet import nomad_install, nomad_sources
from roost.fleet.nomad_binary import NomadRequest, ensure_nomad, nomad_version, preview_nomad
from roost.fleet.nomad_release import FOLDER_KEY, Platform
from roost.ops.errors import RoostError
from tests.support.releases import (
    ARCHIVE,
    PLATFORM,
    SUMS,
    VERSION,
    ReleaseServer,
    Signer,
    pretended_nomad,
    request_in,
)


def program_at(path: Path, content: bytes | None = None) -> Path:
    """Put a pretended Nomad somewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pretended_nomad() if content is None else content)
    path.chmod(0o755)
    return path


def cached(request: NomadRequest, content: bytes | None = None) -> Path:
    """Put a pretended Nomad into the cache as a release."""
    key = nomad_sources.release_key(request.version, request.platform)
    path = program_at(request.cache_dir / "nomad" / key / "nomad", content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(nomad_sources.SIDECAR).write_text(f"{digest}  nomad\n")
    return path


def bundled(folder: Path, content: bytes | None = None) -> Path:
    """Make an offline folder with a program and a manifest."""
    path = program_at(folder / "nomad" / "nomad", content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps({"files": {"nomad/nomad": {"sha256": digest}}}))
    return path


def leftovers(request: NomadRequest) -> list[str]:
    """Return the names of temporary files and folders in cache and installation, downloads to go on with aside."""
    found = [p for top in (request.cache_dir, request.install_dir) for p in top.rglob(".partial-*")]
    return [str(p) for p in found if not p.name.endswith(".zip")]


# --- Present -------------------------------------------------------------------------------------------------


def test_program_on_the_path_is_copied(tmp_path: Path, bare_machine: Path) -> None:
    program_at(bare_machine / "nomad")
    request = request_in(tmp_path, "present", "release")
    assert preview_nomad(request).words == "would install Nomad 1.11.3 from present"
    done = ensure_nomad(request)
    assert (done.source, done.changed) == ("present", True)
    (bare_machine / "nomad").unlink()  # for example by the package manager
    assert nomad_version(request.link) == VERSION


def test_other_version_on_the_path_is_not_taken(tmp_path: Path, bare_machine: Path) -> None:
    program_at(bare_machine / "nomad", pretended_nomad("1.10.0"))
    with pytest.raises(RoostError, match=r"nomad is version 1\.10\.0"):
        ensure_nomad(request_in(tmp_path, "present"))


def test_program_that_others_may_write_is_not_even_run(tmp_path: Path, bare_machine: Path) -> None:
    evil = f"#!/bin/sh\n: > {tmp_path}/was-run\n".encode()
    program_at(bare_machine / "nomad", evil).chmod(0o777)
    with pytest.raises(RoostError, match="could be changed by another user"):
        ensure_nomad(request_in(tmp_path, "present"))
    assert not (tmp_path / "was-run").exists()


def test_program_that_is_no_nomad_is_named(tmp_path: Path, bare_machine: Path) -> None:
    program_at(bare_machine / "nomad", b"#!/bin/sh\necho hello\n")
    with pytest.raises(RoostError, match="does not say a version of Nomad"):
        ensure_nomad(request_in(tmp_path, "present"))


@pytest.mark.usefixtures("bare_machine")
def test_program_at_its_place_without_a_stamp_is_adopted(tmp_path: Path) -> None:
    request = request_in(tmp_path, "present")
    program_at(request.program)
    assert ensure_nomad(request).source == "present"
    assert ensure_nomad(request).changed is False


# --- Offline -------------------------------------------------------------------------------------------------


def signed_folder(folder: Path, server: ReleaseServer, vendor: Signer) -> Path:
    """Make an offline folder of the files of a release server."""
    server.publish(vendor, pretended_nomad())
    (folder / "nomad").mkdir(parents=True)
    for name in (ARCHIVE, SUMS, f"{SUMS}.sig"):
        (folder / "nomad" / name).write_bytes(server.files[f"/nomad/{VERSION}/{name}"])
    (folder / "nomad" / FOLDER_KEY).write_bytes(server.files["/key.txt"])
    return folder


@pytest.mark.usefixtures("bare_machine")
def test_offline_folder_with_a_signed_release(tmp_path: Path, server: ReleaseServer, vendor: Signer) -> None:
    folder = signed_folder(tmp_path / "offline", server, vendor)
    request = replace(request_in(tmp_path, "offline", fingerprint=vendor.fingerprint), offline_dir=folder)
    assert preview_nomad(request).words == "would install Nomad 1.11.3 from offline"
    assert ensure_nomad(request).source == "offline"
    assert server.asked == []


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(
    ("name", "words"),
    [(ARCHIVE, "has the SHA-256"), (SUMS, "does not fit"), (f"{SUMS}.sig", "cannot be verified"), (FOLDER_KEY, "Fix:")],
)
def test_offline_folder_with_a_changed_file(
    tmp_path: Path, server: ReleaseServer, vendor: Signer, name: str, words: str
) -> None:
    folder = signed_folder(tmp_path / "offline", server, vendor)
    content = (folder / "nomad" / name).read_bytes()
    (folder / "nomad" / name).write_bytes(b"#" + content[1:])
    request = replace(request_in(tmp_path, "offline", fingerprint=vendor.fingerprint), offline_dir=folder)
    with pytest.raises(RoostError) as caught:
        ensure_nomad(request)
    assert words in str(caught.value)
    assert not request.program.exists()


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize("name", [SUMS, f"{SUMS}.sig", FOLDER_KEY])
def test_offline_folder_with_a_missing_file(tmp_path: Path, server: ReleaseServer, vendor: Signer, name: str) -> None:
    folder = signed_folder(tmp_path / "offline", server, vendor)
    (folder / "nomad" / name).unlink()
    request = replace(request_in(tmp_path, "offline", fingerprint=vendor.fingerprint), offline_dir=folder)
    with pytest.raises(RoostError, match=rf"{name} cannot be read(.|\n)*Put {SUMS}"):
        ensure_nomad(request)


@pytest.mark.usefixtures("bare_machine")
def test_bundled_program_is_taken_although_it_may_not_be_run_there(tmp_path: Path) -> None:
    bundled(tmp_path / "offline").chmod(0o444)
    request = replace(request_in(tmp_path, "present", "offline"), offline_dir=tmp_path / "offline")
    assert ensure_nomad(request).source == "offline"
    assert nomad_version(request.link) == VERSION


@pytest.mark.usefixtures("bare_machine")
def test_bundled_program_that_is_not_what_the_manifest_says(tmp_path: Path) -> None:
    bundled(tmp_path / "offline").write_bytes(pretended_nomad() + b"# more\n")
    request = replace(request_in(tmp_path, "offline"), offline_dir=tmp_path / "offline")
    with pytest.raises(RoostError, match=r"bundle\.json says"):
        ensure_nomad(request)


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize("manifest", [None, "{", "{}", '{"files": {"nomad/nomad": "x"}}'])
def test_bundled_program_without_a_manifest(tmp_path: Path, manifest: str | None) -> None:
    bundled(tmp_path / "offline")
    (tmp_path / "offline/bundle.json").unlink()
    if manifest is not None:
        (tmp_path / "offline/bundle.json").write_text(manifest)
    request = replace(request_in(tmp_path, "offline"), offline_dir=tmp_path / "offline")
    with pytest.raises(RoostError, match=r"bundle\.json does not say the SHA-256"):
        ensure_nomad(request)


@pytest.mark.usefixtures("bare_machine")
def test_bundle_of_another_version(tmp_path: Path) -> None:
    bundled(tmp_path / "offline", pretended_nomad("1.11.2"))
    request = replace(request_in(tmp_path, "offline"), offline_dir=tmp_path / "offline")
    with pytest.raises(RoostError, match=r"delivered Nomad 1\.11\.2 instead of 1\.11\.3"):
        ensure_nomad(request)


# --- Cache ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("bare_machine")
def test_damaged_cache_is_said_removed_and_replaced(tmp_path: Path, server: ReleaseServer, vendor: Signer) -> None:
    server.publish(vendor, pretended_nomad())
    request = request_in(tmp_path, "cache", "release", server=server, fingerprint=vendor.fingerprint)
    with cached(request).open("ab") as stream:
        stream.write(b"# a flipped bit\n")
    lines: list[str] = []
    done = ensure_nomad(request, lines.append)
    assert done.source == "release"
    assert any("is damaged and is removed" in line for line in lines)
    again = replace(request, install_dir=tmp_path / "again", sources=("cache",))
    assert ensure_nomad(again).sha256 == done.sha256


@pytest.mark.usefixtures("bare_machine")
def test_cache_without_its_hash_counts_as_damaged(tmp_path: Path) -> None:
    request = request_in(tmp_path, "cache")
    cached(request).with_name(nomad_sources.SIDECAR).unlink()
    with pytest.raises(RoostError, match="no whole copy"):
        ensure_nomad(request)


@pytest.mark.usefixtures("bare_machine")
def test_cache_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    request = request_in(tmp_path, "cache")
    cached(request).parent.chmod(0o777)
    with pytest.raises(RoostError, match="could be changed by another user"):
        ensure_nomad(request)


def test_cache_key_depends_on_version_and_platform() -> None:
    keys = {
        nomad_sources.release_key(VERSION, PLATFORM),
        nomad_sources.release_key("1.11.4", PLATFORM),
        nomad_sources.release_key(VERSION, Platform("linux", "arm64")),
    }
    assert len(keys) == 3


# --- Order, errors, what is installed ------------------------------------------------------------------------


@pytest.mark.usefixtures("bare_machine")
def test_every_refusal_is_in_the_error_with_a_fix(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(RoostError) as caught:
        ensure_nomad(request_in(tmp_path, "present", "offline", "cache", "release", "source"), lines.append)
    text = str(caught.value)
    assert text.startswith("Nomad 1.11.3 could be had from no source.\n")
    for words in (
        "  present: No nomad is on the PATH.",
        "  offline: No offline folder was given.",
        "  cache: ",
        "  release: localhost:1 could not be reached: [Errno 111] Connection refused.",
        "  source: The source build is not described: ",
        "Fix: One of these is enough.",
        "  offline: Make one with `roost bundle DIR` and use --offline DIR.",
        "  release: Check the network, DNS and the proxy settings",
    ):
        assert words in text
    assert len([line for line in lines if line.startswith("Source ")]) == 5


@pytest.mark.usefixtures("bare_machine")
def test_sources_are_tried_in_the_given_order(tmp_path: Path) -> None:
    bundled(tmp_path / "offline")
    first = replace(request_in(tmp_path / "1", "offline", "cache"), offline_dir=tmp_path / "offline")
    cached(first)
    second = replace(first, sources=("cache", "offline"), install_dir=tmp_path / "2")
    assert [ensure_nomad(first).source, ensure_nomad(second).source] == ["offline", "cache"]


@pytest.mark.usefixtures("bare_machine")
def test_unreachable_server_falls_to_the_next_source(tmp_path: Path) -> None:
    request = request_in(tmp_path, "release", "cache")
    cached(request)
    done = ensure_nomad(request)
    assert done.source == "cache"
    assert [refusal.source for refusal in done.refusals] == ["release"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "../../etc"}, "is not a version of Nomad"),
        ({"version": "1.11"}, "is not a version of Nomad"),
        ({"sources": ("cache", "magic")}, "names 'magic', which does not exist"),
        ({"sources": ()}, "nomad_sources is empty"),
    ],
)
def test_request_that_makes_no_sense(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    request = replace(request_in(tmp_path, "cache"), **change)
    for act in (ensure_nomad, preview_nomad):
        with pytest.raises(RoostError, match=words):
            act(request)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("bare_machine")
def test_upgrade_keeps_the_old_version_and_goes_back_without_any_source(tmp_path: Path) -> None:
    old = request_in(tmp_path, "cache")
    new = replace(old, version="1.11.4")
    cached(old)
    cached(new, pretended_nomad("1.11.4"))
    ensure_nomad(old)
    ensure_nomad(new)
    assert nomad_version(new.link) == "1.11.4"
    shutil.rmtree(old.cache_dir)
    assert preview_nomad(old).words == "would go over to Nomad 1.11.3, which is installed"
    back = ensure_nomad(old)
    assert (back.changed, back.source, nomad_version(old.link)) == (True, "cache", VERSION)


@pytest.mark.usefixtures("bare_machine")
def test_nothing_to_do_reads_no_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_in(tmp_path, "cache")
    cached(request)
    ensure_nomad(request)

    def never(_path: Path) -> str:
        raise AssertionError("a file was hashed")

    monkeypatch.setattr(nomad_sources, "sha256_file", never)
    shutil.rmtree(request.cache_dir)
    assert ensure_nomad(request).changed is False
    assert preview_nomad(request).changed is False
    assert not request.cache_dir.exists()


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize("sources", [("cache",), ("present", "cache")])
def test_changed_installed_program_is_installed_again(tmp_path: Path, sources: tuple[str, ...]) -> None:
    request = request_in(tmp_path, *sources)
    cached(request)
    good = ensure_nomad(request)
    with request.program.open("ab") as stream:
        stream.write(b"# evil\n")
    lines: list[str] = []
    again = ensure_nomad(request, lines.append)
    assert (again.changed, again.source, again.sha256) == (True, "cache", good.sha256)
    assert "is not the file that was installed; installing it again" in lines[0]
    assert request.program.read_bytes() == pretended_nomad()


@pytest.mark.usefixtures("bare_machine")
def test_changed_program_stays_while_no_source_delivers(tmp_path: Path) -> None:
    request = request_in(tmp_path, "cache")
    cached(request)
    ensure_nomad(request)
    os.utime(request.program)
    shutil.rmtree(request.cache_dir)
    with pytest.raises(RoostError, match="from no source"):
        ensure_nomad(request)
    assert nomad_version(request.link) == VERSION  # a service may be using it


@pytest.mark.usefixtures("bare_machine")
def test_preview_changes_nothing(tmp_path: Path, server: ReleaseServer) -> None:
    request = request_in(tmp_path / "host", "present", "offline", "cache", "release", "source", server=server)
    assert preview_nomad(request).words == "would install Nomad 1.11.3 from release or source"
    cached(request)
    assert preview_nomad(request).words == "would install Nomad 1.11.3 from cache"
    shutil.rmtree(request.cache_dir)
    with pytest.raises(RoostError, match="in none of the sources present, cache"):
        preview_nomad(replace(request, sources=("present", "cache")))
    assert server.asked == []
    assert list((tmp_path / "host").iterdir()) == []


@pytest.mark.usefixtures("bare_machine")
def test_too_little_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_in(tmp_path, "cache")
    cached(request)
    monkeypatch.setattr(nomad_install, "INSTALL_SPACE", 1 << 60)
    with pytest.raises(RoostError, match="MB free"):
        ensure_nomad(request)
    assert not request.program.exists()


@pytest.mark.usefixtures("bare_machine")
def test_disk_that_fills_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_in(tmp_path, "cache")
    cached(request)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("roost.fleet.nomad_install.os.fsync", full)
    with pytest.raises(RoostError, match=r"The disk is full.*Free disk space"):
        ensure_nomad(request)
    assert not request.program.exists()
    assert leftovers(request) == []


# --- Together and interrupted --------------------------------------------------------------------------------


@pytest.mark.usefixtures("bare_machine")
def test_concurrent_calls_do_the_work_once(tmp_path: Path, server: ReleaseServer, vendor: Signer) -> None:
    server.publish(vendor, pretended_nomad(padding=300_000))
    request = request_in(tmp_path, "release", server=server, fingerprint=vendor.fingerprint)
    start = threading.Barrier(6)

    def call(_number: int) -> bool:
        start.wait()
        return ensure_nomad(request).changed

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(call, range(6))) == [False] * 5 + [True]
    assert len(server.asked_for(ARCHIVE)) == 1


@pytest.mark.usefixtures("bare_machine")
def test_waiting_for_another_process_is_said(tmp_path: Path, server: ReleaseServer, vendor: Signer) -> None:
    server.publish(vendor, pretended_nomad())
    request = request_in(tmp_path, "release", server=server, fingerprint=vendor.fingerprint)
    waiting, lines = threading.Event(), list[str]()

    def second(line: str) -> None:
        lines.append(line)
        waiting.set()

    with ThreadPoolExecutor(1) as pool:

        def first(line: str) -> None:
            if line.startswith("Looking for"):
                others.append(pool.submit(ensure_nomad, request, second))
                assert waiting.wait(30)

        others: list[object] = []
        assert ensure_nomad(request, first).changed is True
    assert lines == ["Another process is getting Nomad; waiting for it"]


def interrupt(*_words: object, **_more: object) -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(
    "where",
    [
        "roost.ops.fetch.Fetcher._copy",
        "roost.fleet.nomad_release.unpack",
        "roost.fleet.nomad_sources.write_atomic",
        "roost.fleet.nomad_install.os.fsync",
        "roost.fleet.nomad_install.write_atomic",
        "roost.fleet.nomad_binary.point",
    ],
)
def test_interrupted_anywhere_leaves_nothing_half_done(
    tmp_path: Path, server: ReleaseServer, vendor: Signer, where: str
) -> None:
    server.publish(vendor, pretended_nomad(padding=300_000))
    request = request_in(tmp_path, "cache", "release", server=server, fingerprint=vendor.fingerprint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            ensure_nomad(request)
    assert leftovers(request) == []
    assert not request.link.is_symlink()
    whole = nomad_sources.release_key(VERSION, PLATFORM)
    for folder in (request.cache_dir / "nomad").glob("[0-9a-f]*"):
        assert folder.name == whole
        assert (folder / "nomad.sha256").exists()
    assert ensure_nomad(request).changed is True  # and the next call gets it done
    assert nomad_version(request.link) == VERSION


@pytest.mark.usefixtures("bare_machine")
def test_rests_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    request = request_in(tmp_path, "cache")
    cached(request)
    (request.cache_dir / "nomad" / ".partial-work-killed").mkdir()
    request.program.parent.mkdir(parents=True)
    (request.program.parent / ".partial-killed").write_bytes(b"half")
    ensure_nomad(request)
    assert leftovers(request) == []
