"""Snapshots of Nomad's state: kept by age, checked by their own sums, damaged ones refused."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet import snapshots
from roost.fleet.nomad_api import NomadRefusedError
from roost.ops.errors import RoostError

RAFT_SAYS = (
    "Raft error when taking snapshot: cannot take snapshot now, wait until the configuration entry at 53 has been "
    "applied (have applied 51)"
)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def archive(*, index: int = 7, state: bytes = b"state", sums: dict[str, str] | None = None) -> bytes:
    parts = {"meta.json": json.dumps({"Index": index, "Term": 2}).encode(), "state.bin": state}
    sums = sums or {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    parts["SHA256SUMS"] = "".join(f"{sha}  {name}\n" for name, sha in sums.items()).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def digest_of(content: bytes) -> str:
    return "SHA-256=" + base64.b64encode(hashlib.sha256(content).digest()).decode()


class Nomad:
    """Gives one archive; keeps what it is given."""

    def __init__(self, content: bytes, digest: str | None = None) -> None:
        self.content = content
        self.digest = digest_of(content) if digest is None else digest
        self.restored: list[object] = []

    def download(self, path: str, *, timeout_s: float) -> tuple[bytes, str]:
        assert path == "operator/snapshot"
        assert timeout_s > 0
        return self.content, self.digest

    def request(self, method: str, path: str, body: object = None, *, timeout_s: float | None = None) -> object:
        assert (method, path) == ("PUT", "operator/snapshot")
        assert timeout_s
        self.restored.append(body)
        return None


def test_one_is_saved_private_and_can_be_gone_back_to(tmp_path: Path) -> None:
    nomad = Nomad(archive(index=42))
    made = snapshots.save(nomad, tmp_path, keep=3, now=NOW)
    assert made.path == tmp_path / "nomad-20260102T030405Z.snap"
    assert (made.index, made.term, made.size_bytes) == (42, 2, len(nomad.content))
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert snapshots.restore(nomad, made.path) == (42, 2)
    assert nomad.restored == [nomad.content]


class ChangingNomad(Nomad):
    """One whose servers become others just then, for so many questions."""

    def __init__(self, content: bytes, refusals: int, said: str = RAFT_SAYS) -> None:
        super().__init__(content)
        self.refusals, self.said = refusals, said

    def download(self, path: str, *, timeout_s: float) -> tuple[bytes, str]:
        self.refusals -= 1
        if self.refusals >= 0:
            raise NomadRefusedError(500, self.said, f"GET {path}")
        return super().download(path, timeout_s=timeout_s)


def test_servers_that_become_others_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raft gives no snapshot while a server gets its vote."""
    assert snapshots.save(ChangingNomad(archive(), 2), tmp_path, keep=3, now=NOW).index == 7
    monkeypatch.setattr(snapshots, "SETTLE_S", 0.0)
    with pytest.raises(NomadRefusedError, match="wait until"):
        snapshots.save(ChangingNomad(archive(), 99), tmp_path, keep=3, now=NOW)
    another = ChangingNomad(archive(), 1, "No cluster leader")
    with pytest.raises(NomadRefusedError, match="No cluster leader"):
        snapshots.save(another, tmp_path, keep=3, now=NOW)
    assert another.refusals == 0, "it is asked once"


def test_the_newest_are_kept_and_what_others_put_there_stays(tmp_path: Path) -> None:
    (tmp_path / "before-the-upgrade.snap").write_bytes(b"mine")
    for hours in range(5):
        snapshots.save(Nomad(archive(index=hours + 1)), tmp_path, keep=3, now=NOW + timedelta(hours=hours))
    assert [one.index for one in snapshots.listing(tmp_path)] == [5, 4, 3]
    assert (tmp_path / "before-the-upgrade.snap").exists()


def test_one_that_is_put_elsewhere_removes_nothing(tmp_path: Path) -> None:
    for hours in range(3):
        snapshots.save(Nomad(archive()), tmp_path, keep=3, now=NOW + timedelta(hours=hours))
    snapshots.save(Nomad(archive()), tmp_path, keep=1, now=NOW, out=tmp_path / "apart")
    assert len(snapshots.listing(tmp_path)) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no whole snapshot"),
        (b"\x1f\x8bnot packed", "no whole snapshot"),
        (gzip.compress(b"not a tar"), "no whole snapshot"),
        (archive()[:-40], "no whole snapshot"),
        (archive(sums={"state.bin": "0" * 64}), "damaged"),
        (archive(sums={"meta.json": hashlib.sha256(b"").hexdigest(), "state.bin": "1" * 64}), "damaged"),
    ],
    ids=["empty", "not packed", "no tar", "cut off", "one sum", "two sums"],
)
def test_a_damaged_one_is_refused_before_nomad_sees_it(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / snapshots.file_name(NOW)
    path.write_bytes(content)
    nomad = Nomad(archive())
    with pytest.raises(RoostError, match=words):
        snapshots.restore(nomad, path)
    assert nomad.restored == []
    assert [one.index for one in snapshots.listing(tmp_path)] == [0]


def test_what_comes_damaged_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="came damaged"):
        snapshots.save(Nomad(archive(), digest_of(b"else")), tmp_path, keep=3, now=NOW)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert snapshots.listing(tmp_path / "none") == []
    with pytest.raises(RoostError, match="cannot be written"):
        snapshots.save(Nomad(archive()), tmp_path / "none", keep=3, now=NOW)
    with pytest.raises(RoostError, match="cannot be read"):
        snapshots.check(tmp_path / "none.snap")


@given(st.lists(st.integers(0, 4_000_000_000), unique=True), st.integers(-3, 6))
def test_never_fewer_than_one_and_only_the_oldest_go(times: list[int], keep: int) -> None:
    names = {snapshots.file_name(datetime.fromtimestamp(t, UTC)) for t in times}
    gone = snapshots.superfluous([*names, "other.snap", "nomad-x.snap"], keep)
    left = names - set(gone)
    assert set(gone) <= names
    assert len(left) == min(len(names), max(keep, 1))
    assert not gone or min(left) > max(gone)


STATE = bytes(range(256)) * 64


@given(where=st.integers(0, len(archive(state=STATE)) - 1), bits=st.integers(1, 255))
def test_any_changed_byte_is_found_or_changes_nothing(where: int, bits: int) -> None:
    content = bytearray(archive(state=STATE))
    where %= len(content)  # the header holds the time
    content[where] ^= bits
    with contextlib.suppress(RoostError):
        assert snapshots.inspect(bytes(content), "It") == (7, 2)
