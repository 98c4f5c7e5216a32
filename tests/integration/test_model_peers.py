"""Models from another node: one process serves its folder over mutual TLS, this one fetches from it."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from roost.models.fetch import Places
from roost.models.schema import Download, ModelFile
from roost.models.source_types import PathSource
from roost.models.store import forget_stamp, model_path
from roost.ops.errors import RoostError
from roost.ops.fetch import Fetcher
from tests.support.fetching import ensure_model
from tests.unit.cli.fakes import installation

CONTENT = hashlib.shake_256(b"peer").digest(3_000_000)
FILE = ModelFile(name="tiny.gguf", bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
NOWHERE = PathSource(kind="path", path=Path("/nonexistent"))
MODEL = Download(file=FILE, sources=[NOWHERE])
SERVE = [sys.executable, "-P", "-m", "roost", "models", "serve", "--listen"]
APP = Path(__file__).resolve().parents[2] / "app"


@dataclass(frozen=True)
class Node:
    """A node that serves its models: where, its folder, and where the certificates lie."""

    url: str
    models_dir: Path
    tls: Path
    process: subprocess.Popen[str]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Serve one model from an installation of its own."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "origin").mkdir()
    (folder / "origin" / FILE.name).write_bytes(CONTENT)
    with installation(folder) as made:
        origin = Download(file=FILE, sources=[PathSource(kind="path", path=folder / "origin")])
        ensure_model("tiny", origin, Places(folder / "models", folder / "cache"))
        environment = {**os.environ, "PYTHONPATH": str(APP), "ROOST_SITE": str(made.site_file)}
        with subprocess.Popen(
            [*SERVE, "127.0.0.1:0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("Serving "), process.stderr.read() if process.stderr else ""
            yield Node(line.split(" at ")[1].split(";")[0], folder / "models", folder / "tls", process)
            process.kill()


@pytest.fixture
def here(tmp_path: Path, node: Node) -> Places:
    """Return this node's folders; its certificate is one of the fleet's."""
    identity = (node.tls / "cli.pem", node.tls / "cli-key.pem")
    return Places(
        tmp_path / "models", tmp_path / "cache", peers=(node.url,), peer_ca=node.tls / "ca.pem", peer_identity=identity
    )


def test_another_node_is_a_source(node: Node, here: Places) -> None:
    done = ensure_model("tiny", MODEL, here)
    assert done.source == f"{node.url}/models/{FILE.relative_path}"
    assert done.path.read_bytes() == CONTENT
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o444
    assert not ensure_model("tiny", MODEL, here).changed


def test_a_download_goes_on_where_it_stopped(here: Places) -> None:
    begun = here.partial(FILE)
    begun.parent.mkdir(parents=True)
    begun.write_bytes(bytes(1000) + CONTENT[1000:2_000_000])
    lines: list[str] = []
    ensure_model("tiny", MODEL, replace(here, notify=lines.append))
    # it was asked for the rest alone, so the spoilt beginning shows, and only then all is fetched
    assert any("does not fit" in line for line in lines)
    shutil.rmtree(here.models_dir)
    shutil.rmtree(here.cache_dir)
    begun.parent.mkdir(parents=True)
    begun.write_bytes(CONTENT[:2_000_000])
    assert ensure_model("tiny", MODEL, replace(here, notify=lines.append)).path.read_bytes() == CONTENT


def test_who_is_not_of_the_fleet_gets_nothing(here: Places) -> None:
    with pytest.raises(RoostError, match="could not be fetched"):
        ensure_model("tiny", MODEL, replace(here, peer_identity=None))
    assert not model_path(here.models_dir, FILE).exists()


def test_a_stranger_that_serves_is_not_believed(node: Node, here: Places) -> None:
    with pytest.raises(RoostError, match="is not trusted"):
        ensure_model("tiny", MODEL, replace(here, peer_ca=None))
    assert node.process.poll() is None


@pytest.mark.parametrize(
    "path",
    [
        "models/.lock",
        f"models/{FILE.sha256[:16]}/.{FILE.name}.stamp",
        f"models/{FILE.sha256[:16]}/none",
        f"models/{FILE.sha256[:16]}/..%2f..%2fsite.json",
        "models/../site.json",
        "site.json",
        "models/",
    ],
)
def test_nothing_else_is_given(node: Node, here: Places, path: str) -> None:
    with pytest.raises(RoostError, match="answered 404"):
        Fetcher(here.peer_ca, identity=here.peer_identity).small(f"{node.url}/{path}")


def test_what_is_not_whole_is_not_given(node: Node, here: Places) -> None:
    there = model_path(node.models_dir, FILE)
    forget_stamp(there)
    with pytest.raises(RoostError, match="answered 404"):
        ensure_model("tiny", MODEL, here)


def test_it_ends_when_it_is_asked_to(node: Node, here: Places) -> None:
    ensure_model("tiny", MODEL, here)
    node.process.send_signal(signal.SIGINT)
    said, problems = node.process.communicate(timeout=30)
    assert (node.process.returncode, problems) == (0, "")
    assert said == "Stopped.\n"


def test_plain_http_gets_no_answer(node: Node) -> None:
    with pytest.raises(RoostError, match="could not be reached"):
        Fetcher().small(node.url.replace("https", "http"))
