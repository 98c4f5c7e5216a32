"""Before a machine is changed others take over; after it its servers have requests again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.endpoint_list import Drain, EndpointDocument, parse_document
from roost.fleet.gate import Asker, Server
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.fleet.rolling.endpoint_drains import close, open_again, reopened
from roost.fleet.rolling.traffic import QUIET_S, Handover, hand_over
from roost.ops.errors import RoostError


class FakeNomad:
    """Model servers by job, with the machine of each; the document of drains as a variable."""

    def __init__(self, jobs: dict[str, str], *, known: bool = True) -> None:
        self.machines = jobs
        self.document = EndpointDocument() if known else None
        self.writes = 0

    def list_jobs(self) -> list[dict[str, Any]]:
        return [{"ID": name, "Meta": {"roost_node": node}} for name, node in self.machines.items()]

    def job(self, name: str) -> dict[str, Any]:
        slot = name.split("-")[2]
        service = {"Name": f"roost-model-{slot}", "Tags": []}
        return {"ID": name, "TaskGroups": [{"Count": 1, "Services": [service], "Tasks": [{"Config": {}}]}]}

    def get(self, path: str) -> dict[str, Any] | list[dict[str, Any]]:
        if path.startswith("var/"):
            if self.document is None:
                raise NomadRefusedError(404, "none", path)
            return {"Items": {"endpoints": self.document.text()}, "ModifyIndex": self.writes + 1}
        service = path.removeprefix("service/")
        return [
            {"JobID": name, "Address": "127.0.0.1", "Port": number, "Tags": []}
            for number, name in enumerate(self.machines, 1)
            if name.startswith(f"{service}-")
        ]

    def put(self, _path: str, body: dict[str, Any], cas: str) -> None:
        assert cas == str(self.writes + 1)
        self.document = parse_document(body["Items"]["endpoints"])
        self.writes += 1

    @property
    def drained(self) -> set[str]:
        return {drain.endpoint for drain in self.document.drains} if self.document else set()


class FakeAsker:
    """Servers that answer or not, and work on requests for so many looks."""

    def __init__(self, *, dead: Collection[str] = (), busy: int = 0, tells: bool = True) -> None:
        self.dead, self.busy, self.tells = dead, busy, tells

    def token(self, server: Server, _timeout_s: float) -> str:
        return "no" if server.job in self.dead else ""

    def working(self, _server: Server) -> int | None:
        if not self.tells:
            return None
        self.busy -= 1
        return int(self.busy >= 0)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def now(self) -> float:
        return self.time


def never() -> bool:
    raise AssertionError("nothing is to be set up")


THREE = {"roost-model-main-one": "one", "roost-model-main-two": "two", "roost-model-router-one": "one"}


def run(nomad: FakeNomad, ask: FakeAsker, timeout_s: float = 60) -> tuple[Any, Clock]:
    clock = Clock()
    found = hand_over(
        cast("NomadClient", nomad), "one", cast("Asker", ask), timeout_s,
        set_up_anew=never, sleep=clock.sleep, now=clock.now,
    )  # fmt: skip
    return found, clock


def test_what_others_serve_is_handed_over_and_what_nobody_else_serves_is_not() -> None:
    nomad = FakeNomad(THREE)
    found, clock = run(nomad, FakeAsker())
    assert found.taken == ("roost-model-main-one",)
    assert found.alone == ("roost-model-router-one",)
    assert nomad.drained == {"roost-model-main-one"}
    assert clock.time >= QUIET_S


def test_another_server_that_does_not_answer_or_is_drained_takes_nothing_over() -> None:
    nomad = FakeNomad(THREE)
    assert run(nomad, FakeAsker(dead={"roost-model-main-two"}))[0].taken == ()
    assert nomad.drained == set()
    close(cast("NomadClient", nomad), ["roost-model-main-two"])
    assert run(nomad, FakeAsker())[0].taken == ()


def test_it_waits_for_what_runs_but_not_for_ever() -> None:
    found, clock = run(FakeNomad(THREE), FakeAsker(busy=40))
    assert found.running == 0
    assert clock.time >= 20 + QUIET_S - 1
    found, clock = run(FakeNomad(THREE), FakeAsker(busy=10**6), timeout_s=30)
    assert found.running == 1
    assert 30 <= clock.time <= 31
    assert run(FakeNomad(THREE), FakeAsker(tells=False))[1].time >= QUIET_S


def test_it_has_requests_again_and_what_a_user_drained_stays_drained() -> None:
    nomad = FakeNomad(THREE)
    client = cast("NomadClient", nomad)
    run(nomad, FakeAsker())
    users = Drain(endpoint="main@127.0.0.1:9")
    assert nomad.document
    nomad.document = nomad.document.model_copy(update={"drains": (*nomad.document.drains, users)})
    assert open_again(client, nomad.machines, "one")
    assert nomad.drained == {"main@127.0.0.1:9"}
    writes = nomad.writes
    assert not open_again(client, nomad.machines, "one")
    assert nomad.writes == writes


def test_drains_of_jobs_that_are_gone_go_too_and_those_of_other_machines_stay() -> None:
    drains = tuple(Drain(endpoint=name) for name in ("roost-model-old", *THREE))
    after = reopened(EndpointDocument(drains=drains), THREE, "one")
    assert [drain.endpoint for drain in after.drains] == ["roost-model-main-two"]


def test_without_gateways_there_is_nothing_to_say() -> None:
    nomad = FakeNomad(THREE, known=False)
    assert not close(cast("NomadClient", nomad), ["roost-model-main-one"])
    assert not open_again(cast("NomadClient", nomad), THREE, "one")
    assert nomad.writes == 0


@given(st.lists(st.sampled_from([*THREE, "box", "main@127.0.0.1:1"]), unique=True), st.sampled_from(["one", "two"]))
def test_opening_takes_away_just_the_machines_own(drained: list[str], node: str) -> None:
    after = reopened(EndpointDocument(drains=tuple(Drain(endpoint=name) for name in drained)), THREE, node)
    assert [d.endpoint for d in after.drains] == [name for name in drained if THREE.get(name) != node]


class ForgetfulNomad(FakeNomad):
    """One that refuses everybody."""

    def __init__(self, status: int) -> None:
        super().__init__({})
        self.status = status

    def get(self, path: str) -> dict[str, Any] | list[dict[str, Any]]:
        raise NomadRefusedError(self.status, "Permission denied", path)


def ask_forgetful(status: int, set_up_anew: Callable[[], bool]) -> Handover:
    nomad, ask = cast("NomadClient", ForgetfulNomad(status)), cast("Asker", FakeAsker())
    return hand_over(nomad, "one", ask, 1, set_up_anew=set_up_anew)


def test_a_nomad_that_lost_its_state_has_nothing_to_hand_over() -> None:
    assert ask_forgetful(403, lambda: True) == Handover(lost=True)
    with pytest.raises(NomadRefusedError):
        ask_forgetful(500, never)


def test_a_token_that_may_not_look_is_no_lost_state() -> None:
    with pytest.raises(NomadRefusedError):
        ask_forgetful(403, lambda: False)

    def already() -> bool:
        raise RoostError("Nomad does not know our operator token")

    with pytest.raises(RoostError, match="does not know our operator token"):
        ask_forgetful(403, already)
