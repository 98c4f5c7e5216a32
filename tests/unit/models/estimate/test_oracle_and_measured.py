"""What the engine says: its oracle's lines, and figures kept on the host."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from roost.models.estimate.best import BestEstimator
from roost.models.estimate.header import MIB, estimate_header
from roost.models.estimate.measured import MAX_ENTRIES, MeasuredKey, MeasuredStore
from roost.models.estimate.oracle import ask_oracle, estimate_oracle, read_oracle, settings_arguments, with_overhead
from roost.models.estimate.shape import header_of_shape
from roost.models.footprint import HOST, DeviceBytes, Estimate, LayerSplit, ServerSettings
from roost.ops.errors import RoostError
from tests.support.model_shapes import LLAMA_31_8B, SMOLLM2

SETTINGS = ServerSettings(2048, 4)
SMOL = header_of_shape("llama", SMOLLM2, "Q4_1")
BY_HEADER = estimate_header(SMOL, SETTINGS, LayerSplit())

# --- the oracle --------------------------------------------------------------------------------------------------


def _program(folder: Path, script: str) -> Path:
    path = folder / "oracle"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_rows_with_noise_around() -> None:
    rows = read_oracle("loading ...\nCUDA0 10 20 30 \nCUDA1 1 2 3\nHost 92 720 109 \n")
    assert [(row.device, row.model // MIB, row.context // MIB, row.compute // MIB) for row in rows] == [
        ("CUDA0", 10, 20, 30), ("CUDA1", 1, 2, 3), ("Host", 92, 720, 109),
    ]  # fmt: skip


@pytest.mark.parametrize("output", ["", "Host 1 2", "Host a b c", "CUDA0 1 2 3", "x" * 1_000_000])
def test_anything_else_is_an_error(output: str) -> None:
    with pytest.raises(RoostError, match="did not say"):
        read_oracle(output)


def test_the_oracle_is_run_with_the_servers_arguments(tmp_path: Path) -> None:
    program = _program(tmp_path, f'echo "$@" > {tmp_path}/asked; echo "Host 92 180 106"')
    rows = ask_oracle(lambda _name: ([str(program)], None), tmp_path / "m.gguf", SETTINGS, LayerSplit())
    assert rows[-1].model == 92 * MIB
    asked = (tmp_path / "asked").read_text()
    assert "--fit-print on" in asked
    assert "--ctx-size 8192 --parallel 4 --cache-type-k f16" in asked
    assert "--gpu-layers 0" in asked


def test_the_oracle_knows_no_unified_cache(tmp_path: Path) -> None:
    unified = replace(SETTINGS, kv_unified=True)
    with pytest.raises(RoostError, match="cannot be asked for a unified cache"):
        ask_oracle(lambda _name: (["true"], None), tmp_path / "m.gguf", unified, LayerSplit())


@pytest.mark.parametrize(
    ("script", "says", "within_s"), [("exit 1", "failed", 60), ("exec sleep 60", "did not end", 0.5)]
)
def test_an_oracle_that_fails_or_hangs(tmp_path: Path, script: str, says: str, within_s: float) -> None:
    program = _program(tmp_path, script)
    with pytest.raises(RoostError, match=says):
        ask_oracle(lambda _name: ([str(program)], None), tmp_path / "m", SETTINGS, LayerSplit(), timeout_s=within_s)


def test_arguments_for_several_graphics_processors() -> None:
    arguments = settings_arguments(SETTINGS, LayerSplit((0, 1), (20, 13)))
    assert arguments[-4:] == ["--gpu-layers", "33", "--tensor-split", "20,13"]


def test_oracle_and_header_agree_to_the_byte() -> None:
    """As `llama-fit-params` of build 11669 prints for the embedded model: all outputs of a batch are in its 106."""
    found = estimate_oracle(read_oracle("Host 92 180 106"), SMOL, BY_HEADER, SETTINGS, LayerSplit())
    host = found.on(HOST)
    assert found.origin == "oracle"
    assert (host.weights, host.kv) == (BY_HEADER.on(HOST).weights, BY_HEADER.on(HOST).kv)
    assert 16.64 <= host.compute / MIB <= 18
    assert host.other == BY_HEADER.on(HOST).other


def test_the_oracle_wins_where_they_differ() -> None:
    host = estimate_oracle(read_oracle("Host 150 300 400"), SMOL, BY_HEADER, SETTINGS, LayerSplit()).on(HOST)
    assert host.weights == 151 * MIB
    assert host.kv + host.output == 301 * MIB
    assert 300 * MIB < host.compute <= 401 * MIB


def test_a_tied_embedding_counted_twice_counts_once() -> None:
    host = estimate_oracle(read_oracle("Host 120 180 106"), SMOL, BY_HEADER, SETTINGS, LayerSplit()).on(HOST)
    assert host.weights == BY_HEADER.on(HOST).weights


def test_rows_of_graphics_processors_get_the_hosts_numbers() -> None:
    header = header_of_shape("llama", LLAMA_31_8B, "Q4_K_M")
    split = LayerSplit((2, 5), (20, 13))
    by_header = estimate_header(header, SETTINGS, split)
    rows = read_oracle("CUDA0 2600 640 300\nCUDA1 1800 384 900\nHost 281 2 40")
    found = estimate_oracle(rows, header, by_header, SETTINGS, split)
    assert [device.device for device in found.devices] == [HOST, "GPU2", "GPU5"]
    assert found.on("GPU5").compute < 900 * MIB < 1000 * MIB
    with pytest.raises(RoostError, match="found 2 graphics processors, 3 were planned"):
        estimate_oracle(rows, header, by_header, SETTINGS, LayerSplit((0, 1, 2), (10, 10, 13)))


# --- kept on the host --------------------------------------------------------------------------------------------

KEY = MeasuredKey("engine-1", "ab" * 32, SETTINGS, LayerSplit())
SAID = Estimate((DeviceBytes(HOST, 1, 2, 3, 4, 5),), "oracle")


def test_figures_come_back(tmp_path: Path) -> None:
    store = MeasuredStore(tmp_path)
    assert store.get(KEY) is None
    assert store.keep(KEY, SAID)
    assert not store.keep(KEY, SAID)
    assert MeasuredStore(tmp_path).get(KEY) == SAID


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, engine="engine-2"),
        replace(KEY, sha256="cd" * 32),
        replace(KEY, gpu="NVIDIA H100"),
        replace(KEY, settings=replace(SETTINGS, ubatch=256)),
        replace(KEY, settings=replace(SETTINGS, cache_ram_mib=64)),
        replace(KEY, split=LayerSplit((0,), (3,))),
    ],
)
def test_figures_hold_for_nothing_else(tmp_path: Path, other: MeasuredKey) -> None:
    store = MeasuredStore(tmp_path)
    store.keep(KEY, SAID)
    assert store.get(other) is None


def test_measured_beats_the_oracle_and_the_header_is_not_kept(tmp_path: Path) -> None:
    store = MeasuredStore(tmp_path)
    assert not store.keep(KEY, BY_HEADER)
    measured = with_overhead([DeviceBytes(HOST, 7, 7, 7, 7)], BY_HEADER)
    assert store.keep(KEY, SAID)
    assert store.keep(KEY, measured)
    assert not store.keep(KEY, SAID)
    found = store.get(KEY)
    assert found == measured
    assert found is not None
    assert found.on(HOST).other == BY_HEADER.on(HOST).other


@pytest.mark.parametrize(
    "content", ["", "{", '{"entries": {"x": 3}}', '{"entries": {"k": {"origin": "header"}}}', "\0"]
)
def test_a_damaged_file_is_made_anew(tmp_path: Path, content: str) -> None:
    store = MeasuredStore(tmp_path)
    store.path.write_text(content)
    assert store.get(KEY) is None
    assert store.keep(KEY, SAID)
    assert store.get(KEY) == SAID


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    keys = [replace(KEY, engine=f"engine-{number}") for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: MeasuredStore(tmp_path).keep(key, SAID), keys))
    assert all(MeasuredStore(tmp_path).get(key) == SAID for key in keys)


def test_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.models.estimate.measured.MAX_ENTRIES", 3)
    store = MeasuredStore(tmp_path)
    keys = [replace(KEY, engine=f"engine-{number}") for number in range(5)]
    for key in keys:
        store.keep(key, SAID)
    assert [store.get(key) is not None for key in keys] == [False, False, True, True, True]
    assert MAX_ENTRIES > 100


def test_the_best_is_what_was_measured(tmp_path: Path) -> None:
    store = MeasuredStore(tmp_path)
    best = BestEstimator(lambda *_asked: SMOL, store, lambda *_asked: KEY)
    assert best.estimate("m", "q", SETTINGS, LayerSplit()).origin == "header"
    store.keep(KEY, SAID)
    assert best.estimate("m", "q", SETTINGS, LayerSplit()) == SAID
