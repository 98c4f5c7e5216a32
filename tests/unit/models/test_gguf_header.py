"""GGUF headers: from files, from memory and over HTTP; strangers' files give errors, never harm."""

from __future__ import annotations

import struct
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.models import gguf_header, gguf_read
from roost.models.estimate.shape import header_of_shape
from roost.models.gguf_header import Header, Skipped, Tensor, parse_header, quantisation_block, type_number
from roost.models.gguf_read import MAX_TRANSFER_BYTES, FileReader, header_of_file, header_of_url, part_names
from roost.ops.errors import RoostError
from roost.ops.fetch import Fetcher
from tests.support.examples import examples
from tests.support.gguf_files import Writable, header_bytes, text, tokens, value_bytes
from tests.support.model_shapes import QWEN3_8B, SMOLLM2

SMALL = Header(
    {"general.architecture": "llama", "llama.block_count": 2, "llama.rope.freq_base": 10000.0, "split.tied": True},
    (Tensor("a.weight", (256, 4), type_number("Q4_K")), Tensor("b.bias", (8,), type_number("F32"))),
)


def header_of_bytes(data: bytes) -> Header:
    """Read a header from the beginning of a file that is in memory."""
    return parse_header(FileReader(BytesIO(data), len(data)))


def test_reads_back_what_was_written() -> None:
    found = header_of_bytes(header_bytes(SMALL, tokens(300)))
    assert found.tensors == SMALL.tensors
    assert found.architecture == "llama"
    assert found.metadata["llama.block_count"] == 2
    assert found.metadata["split.tied"] is True
    assert found.metadata["tokenizer.ggml.tokens"] == Skipped(300)
    assert found.tensors[0].bytes == 4 * 144


def test_agrees_with_the_gguf_package(tmp_path: Path) -> None:
    import gguf

    header = header_of_shape("qwen3", QWEN3_8B | {"block_count": 2}, "Q4_K_M")
    path = tmp_path / "m.gguf"
    data = header_bytes(header, tokens(400))
    path.write_bytes(data)
    with path.open("ab") as stream:
        stream.truncate(len(data) + sum(tensor.bytes + 32 for tensor in header.tensors))
    theirs = gguf.GGUFReader(path)
    ours = header_of_file(path)
    assert [(t.name, tuple(map(int, t.shape)), int(t.tensor_type), int(t.n_bytes)) for t in theirs.tensors] == [
        (t.name, t.shape, t.type, t.bytes) for t in ours.tensors
    ]


def test_writers_of_the_gguf_package_are_understood(tmp_path: Path) -> None:
    import gguf
    import numpy as np

    path = tmp_path / "w.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_head_count_kv([1, 2, 3])
    writer.add_token_list([f"t{index}" for index in range(5000)])
    writer.add_tensor("x", np.zeros((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = header_of_file(path)
    assert found.metadata["llama.attention.head_count_kv"] == (1, 2, 3)
    assert found.metadata["tokenizer.ggml.tokens"] == Skipped(5000)
    assert found.tensors == (Tensor("x", (32, 4), type_number("F16")),)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends within"),
        (b"GGML" + bytes(40), "begins with"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62), "claims a text"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 99), "unknown type 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 4, 1 << 62), "more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 62), "ends within"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + 6 * struct.pack("<IIQ", 9, 9, 1),
            "ends within|array of the type",
        ),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<I", 7), "7 dimensions"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<IQIQ", 1, 8, 250, 0), "unknown type 250"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<IQIQ", 1, 1 << 60, 0, 0), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<IQIQ", 1, 33, 2, 0), "no whole blocks"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.alignment") + value_bytes(3),
            "alignment",
        ),
    ],
)
def test_hostile_headers_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(RoostError, match=says):
        header_of_bytes(data)


@pytest.mark.parametrize("name", ["\x1b[2Jllama", "a b", "{{ x }}", "", "x" * 65])
def test_an_architecture_is_a_name(name: str) -> None:
    """It is shown on terminals and written into files."""
    assert header_of_bytes(header_bytes(SMALL, {"general.architecture": name})).architecture == ""


def test_every_cut_is_refused() -> None:
    whole = header_bytes(SMALL, {"general.name": "x"})
    end = len(whole.rstrip(b"\0")) - 1
    for length in range(0, end, 7):
        with pytest.raises(RoostError):
            header_of_bytes(whole[:length])


@examples(100)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=12))
def test_damage_gives_a_header_or_an_error(place: int, damage: bytes) -> None:
    data = bytearray(header_bytes(SMALL, {"general.name": "x", "general.tags": ["a", "b"]}))
    start = place % len(data)
    data[start : start + len(damage)] = damage
    tracemalloc.start()
    try:
        assert isinstance(header_of_bytes(bytes(data)), Header)
    except RoostError:
        pass
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 64 << 20


@examples(50)
@given(st.binary(max_size=400))
def test_noise_is_an_error(noise: bytes) -> None:
    with pytest.raises(RoostError):
        header_of_bytes(b"GGUF" + struct.pack("<IQQ", 3, 3, 3) + noise)


def test_a_sparse_file_of_empty_texts_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_header, "MAX_HEADER_BYTES", 1 << 22)  # as with the true one, in a sixteenth of its time
    path = tmp_path / "endless.gguf"
    with path.open("wb") as stream:
        stream.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 50))
        stream.truncate(1 << 40)
    with pytest.raises(RoostError, match="more than 4 MiB"):
        header_of_file(path)


def test_blocks() -> None:
    assert quantisation_block(type_number("q8_0")) == (32, 34)
    with pytest.raises(RoostError, match="no tensor type"):
        type_number("q99")


# --- several files -----------------------------------------------------------------------------------------------


def test_names_of_parts() -> None:
    assert part_names("m.gguf") == ["m.gguf"]
    assert part_names("m-00001-of-00003.gguf") == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    with pytest.raises(RoostError, match="not the first part"):
        part_names("m-00002-of-00003.gguf")
    with pytest.raises(RoostError, match="99999 parts"):
        part_names("m-00001-of-99999.gguf")


def _parts(folder: Path) -> Path:
    for number in (1, 2):
        part = Header(
            {"general.architecture": "llama"} if number == 1 else {},
            (Tensor(f"t{number}", (32,), 0),),
        )
        extra: dict[str, Writable] = {"split.no": number - 1, "split.count": 2}
        (folder / f"m-0000{number}-of-00002.gguf").write_bytes(header_bytes(part, extra) + bytes(128))
    return folder / "m-00001-of-00002.gguf"


def test_parts_are_put_together(tmp_path: Path) -> None:
    found = header_of_file(_parts(tmp_path))
    assert [tensor.name for tensor in found.tensors] == ["t1", "t2"]


def test_a_missing_or_renamed_part_is_an_error(tmp_path: Path) -> None:
    first = _parts(tmp_path)
    renamed = tmp_path / "alone.gguf"
    renamed.write_bytes(first.read_bytes())
    with pytest.raises(RoostError, match="one of 2 files by its header, and one of 1"):
        header_of_file(renamed)
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(RoostError, match=r"m-00002-of-00002\.gguf cannot be read"):
        header_of_file(first)


# --- over HTTP ---------------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    content: bytes = b""
    zeros: int = 0  # behind the content
    ranges: bool = True
    sent: int = 0
    refusals: int = 0


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.server.refusals:
            self.server.refusals -= 1
            self.send_error(503)
            return
        whole = len(self.server.content) + self.server.zeros
        asked = self.headers.get("Range", "")
        if not (asked and self.server.ranges):
            self.send_response(200)
            self.send_header("Content-Length", str(whole))
            self.end_headers()
            return  # a client that reads on would wait
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1, whole)
        body = self.server.content[start:end]
        body += bytes(end - start - len(body))
        self.server.sent += len(body)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{whole}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Stay quiet."""


@contextmanager
def _serving() -> Iterator[tuple[_Server, str]]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_address[1]}/m.gguf"
        finally:
            server.shutdown()
            thread.join()


def test_a_large_file_costs_little_transfer() -> None:
    header = header_of_shape("qwen3", QWEN3_8B, "Q4_K_M")
    vocabulary = tokens(260_000) | {"tokenizer.ggml.merges": [f"wo{n} rd{n}" for n in range(260_000)]}
    with _serving() as (server, url):
        server.content = header_bytes(header, vocabulary)
        server.zeros = 40 << 30
        found = header_of_url(url, Fetcher())
        assert found == header_of_bytes(server.content)
        assert len(server.content) - (260_000 * 8) < server.sent == found.read_bytes < MAX_TRANSFER_BYTES


def test_a_small_header_costs_one_block() -> None:
    with _serving() as (server, url):
        server.content = header_bytes(SMALL, {})
        server.zeros = 1 << 30
        header_of_url(url, Fetcher())
        assert server.sent == 1 << 18


def test_a_header_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_read, "MAX_TRANSFER_BYTES", 2_000_000)
    with _serving() as (server, url):
        server.content = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 50)
        server.zeros = 40 << 30
        with pytest.raises(RoostError, match="does not end within 2 MB"):
            header_of_url(url, Fetcher())
        assert 1_000_000 < server.sent <= gguf_read.MAX_TRANSFER_BYTES


def test_a_server_without_ranges_is_refused() -> None:
    with _serving() as (server, url):
        server.content = header_bytes(SMALL, {})
        server.ranges = False
        with pytest.raises(RoostError, match="cannot send a part of a file"):
            header_of_url(url, Fetcher())


def test_refusals_for_now_are_waited_out() -> None:
    waits: list[float] = []
    with _serving() as (server, url):
        server.content = header_bytes(SMALL, {})
        server.refusals = 2
        assert header_of_url(url, Fetcher(sleep=waits.append)) == header_of_bytes(server.content)
    assert len(waits) == 2


def test_a_file_that_is_cut_short() -> None:
    with _serving() as (server, url):
        server.content = header_bytes(SMALL, {})[:100]
        with pytest.raises(RoostError, match="ends within"):
            header_of_url(url, Fetcher())


def test_shape_of_the_embedded_model() -> None:
    header = header_of_shape("llama", SMOLLM2, "Q4_1")
    assert round(sum(tensor.bytes for tensor in header.tensors) / 2**20, 2) == 92.10
