"""The proof that a job computes where it was planned, against a scripted Nomad."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roost.fleet.nomad_api import NomadAccess, NomadClient, NomadRefusedError
from roost.fleet.start_proof import Proof, prove, require
from roost.ops.errors import RoostError

LOGS = Path(__file__).parent / "start_logs"
PLAN = {"roost_gpu_layers": "CUDA0=20,CUDA1=13", "roost_gpu_slots": "0000:01:00.0 0000:41:00.0"}


class LoggingNomad(NomadClient):
    """Has one job with this meta; its newest allocation has this log, or Nomad refuses with a status."""

    def __init__(self, meta: dict[str, str], log: bytes | int, status: str = "running") -> None:
        nowhere = Path("/nonexistent")
        super().__init__(NomadAccess("https://127.0.0.1:1", nowhere, nowhere, nowhere))
        self.meta, self.log, self.status = meta, log, status

    def job(self, job_id: str) -> dict[str, Any] | None:
        return {"ID": job_id, "Meta": self.meta or None}

    def allocations(self, job_id: str) -> list[dict[str, Any]]:
        return [{"ID": f"{job_id}-new", "ClientStatus": self.status}, {"ID": "old", "ClientStatus": "complete"}]

    def logs(self, alloc_id: str, task: str, *_: object, from_start: bool = False, **__: object) -> Iterator[bytes]:
        assert (alloc_id, task, from_start) == ("job-new", "engine", True)
        if isinstance(self.log, int):
            raise NomadRefusedError(self.log, "refused", "the log")
        yield from (self.log[i : i + 1000] for i in range(0, len(self.log), 1000))


def log(name: str) -> bytes:
    return (LOGS / f"{name}.txt").read_bytes()


def test_layers_where_they_belong() -> None:
    proof = prove(LoggingNomad(PLAN, log("cuda-two-cards")), "job")
    assert proof.problem == ""
    assert proof.start is not None
    assert proof.gpu_slots == ("0000:01:00.0", "0000:41:00.0")
    require(proof, "docker", fresh=True)


def test_a_server_that_fell_back_is_refused_with_a_way_out() -> None:
    proof = prove(LoggingNomad(PLAN, log("cpu")), "job")
    with pytest.raises(RoostError, match="not as planned: the engine found no CUDA0") as caught:
        require(proof, "docker", fresh=False)
    assert "docker info" in str(caught.value.fix)
    assert "gpu: none" in str(caught.value.fix)


def test_what_is_planned_for_the_processor_needs_no_proof() -> None:
    for answer in (log("cpu"), b"", 404, 500):
        require(prove(LoggingNomad({}, answer), "job"), "docker", fresh=True)


def test_a_fresh_log_has_to_tell_and_an_old_one_may_have_dropped_it() -> None:
    for answer in (b"only later lines\n", 404):
        proof = prove(LoggingNomad(PLAN, answer), "job")
        assert (proof.start, proof.problem) == (None, "")
        require(proof, "raw_exec", fresh=False)
        with pytest.raises(RoostError, match="does not say"):
            require(proof, "raw_exec", fresh=True)


def test_a_cold_server_has_nothing_to_prove() -> None:
    proof = prove(LoggingNomad(PLAN, log("cpu"), status="complete"), "job")
    assert (proof.start, proof.running) == (None, False)
    require(proof, "docker", fresh=False)


def test_a_log_that_nomad_refuses_is_an_error_only_where_it_matters() -> None:
    with pytest.raises(NomadRefusedError):
        prove(LoggingNomad(PLAN, 500), "job")


def test_the_start_is_found_among_much_that_was_logged_since() -> None:
    text = log("cuda-two-cards") + b"slot print_timing: id 0 | prompt eval time\n" * 20000
    assert prove(LoggingNomad(PLAN, text), "job").problem == ""


def test_a_proof_is_plain_data() -> None:
    assert Proof("job", {}, None) == Proof("job", {}, None)
