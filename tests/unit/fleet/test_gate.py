"""The gate behind an update: what belongs on a machine runs, and answers."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from roost.fleet.gate import Asker, Passed, pass_gate, problem
from roost.fleet.membership import LEAVES
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.ops.errors import RoostError

JOB = {
    "ID": "roost-model-main-two",
    "TaskGroups": [
        {"Count": 1, "Services": [{"Name": "roost-model-main", "Tags": ["slot=main"]}], "Tasks": [{"Config": {}}]}
    ],
}


class FakeNomad:
    """A machine with one model server."""

    def __init__(self, port: int, *, ready: bool = True, eligible: bool = True, says: object = None) -> None:
        self.port = port
        self.ready = ready
        self.eligible = eligible
        self.says = says  # of its last drain

    def list_jobs(self) -> list[dict[str, Any]]:
        other = {"ID": "roost-model-main-one", "Meta": {"roost_node": "one"}}
        return [{"ID": JOB["ID"], "Meta": {"roost_node": "two"}}, other, {"ID": "roost-agent"}]

    def job(self, name: str) -> dict[str, Any]:
        assert name == JOB["ID"], "only this machine's are looked at"
        return JOB

    def get(self, path: str) -> list[dict[str, Any]] | dict[str, Any]:
        if path == "nodes":
            state = "eligible" if self.eligible else "ineligible"
            status = "ready" if self.ready else "down"
            address = "192.0.2.2"
            return [{
                "ID": "2", "Name": "two", "Address": address, "Status": status, "SchedulingEligibility": state,
                "Drain": False, "LastDrain": {"Meta": self.says},
            }]  # fmt: skip
        if path == "node/2":
            return {}
        if path.startswith("var/"):  # nothing was ever drained
            raise NomadRefusedError(404, "no such variable", path)
        assert path == "service/roost-model-main"
        return [{"JobID": "roost-model-main-one", "Address": "127.0.0.1", "Port": 1}] + (
            [{"JobID": JOB["ID"], "Address": "127.0.0.1", "Port": self.port}] if self.port else []
        )

    def put(self, path: str, body: dict[str, Any]) -> None:
        assert path == "node/2/drain"
        self.eligible = body["MarkEligible"]
        self.says = body.get("Meta", self.says)


def client(nomad: FakeNomad) -> NomadClient:
    return cast("NomadClient", nomad)


@pytest.fixture
def engine() -> Iterator[tuple[int, list[int]]]:
    status = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status[0] if self.headers["Authorization"] == "Bearer key" else 401)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, status
    server.shutdown()
    server.server_close()


ASK = Asker("key", Path("/nonexistent"))


def test_a_machine_that_was_to_leave_has_work_again_and_passes_when_its_model_answers(
    engine: tuple[int, list[int]],
) -> None:
    nomad = FakeNomad(engine[0], eligible=False, says=LEAVES)
    assert "was to leave" in problem(client(nomad), "two", ASK), "a look alone tells that there is something to do"
    assert pass_gate(client(nomad), "two", ASK, 5) == Passed(given_back=True, out=False)
    assert nomad.eligible
    assert pass_gate(client(nomad), "two", ASK, 5) == Passed(given_back=False, out=False)


def test_one_that_was_taken_out_by_hand_stays_out_and_need_not_run_what_belongs_on_it(
    engine: tuple[int, list[int]],
) -> None:
    out = Passed(given_back=False, out=True)
    nomad = FakeNomad(0, eligible=False, says={"message": "its fan is loud"})
    assert pass_gate(client(nomad), "two", ASK, 0.2) == out
    assert not nomad.eligible
    port, status = engine
    nomad.port = port
    assert pass_gate(client(nomad), "two", ASK, 0.2) == out
    status[0] = 500
    assert "HTTP 500" in problem(client(nomad), "two", ASK), "what runs there has clients"


def test_what_is_wrong_is_said(engine: tuple[int, list[int]]) -> None:
    port, status = engine
    assert problem(client(FakeNomad(port, ready=False)), "two", ASK) == "its node is down"
    assert problem(client(FakeNomad(0)), "two", ASK) == "roost-model-main-two does not run"
    status[0] = 500
    with pytest.raises(RoostError, match=r"two is not as it should be.*HTTP 500.*left as they are"):
        pass_gate(client(FakeNomad(port)), "two", ASK, 0.2)
    wrong = Asker("other", Path("/nonexistent"))
    assert "HTTP 401" in problem(client(FakeNomad(port)), "two", wrong)
