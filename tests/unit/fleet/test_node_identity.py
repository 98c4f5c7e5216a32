"""When a machine's Nomad begins anew because the servers refuse it, and when it is left alone."""

from __future__ import annotations

import itertools
import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.node_identity import Heartbeat, heartbeat, is_silent, renew, seconds, set_up_anew
from roost.fleet.nomad_api import Json, NomadRefusedError


class Agent:
    """A machine's own Nomad; of several answers the last one stays."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked = 0

    def get(self, path: str) -> Json:
        assert path == "agent/self"
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def put(self, path: str, body: Json) -> Json:
        raise AssertionError(path, body)


class Servers:
    """Know nodes, and reach some of them."""

    def __init__(self, **reached: bool) -> None:
        self.reached = reached
        self.renewed: list[str] = []

    def get(self, path: str) -> Json:
        assert path == "nodes"
        return [{"ID": f"id-{name}", "Name": name} for name in self.reached]

    def put(self, path: str, body: Json) -> Json:
        assert path == "client/identity/renew"
        name = str(body["NodeID"]).removeprefix("id-")
        if not self.reached[name]:
            raise NomadRefusedError(404, "No path to node", "PUT client/identity/renew")
        self.renewed.append(name)


def told(last: str, ttl: str) -> dict[str, object]:
    return {"stats": {"client": {"last_heartbeat": last, "heartbeat_ttl": ttl}}}


FRESH, OVERDUE = told("3.2s", "12s"), told("1m30.5s", "12.5s")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", 0.0),
        ("350ms", 0.35),
        ("12.5µs", 0.0000125),
        ("1m30.5s", 90.5),
        ("1h0m2s", 3602.0),
        ("2562047h47m16.854775807s", 9223372036.854775807),  # the longest there is: never
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_every_duration_is_read_back(duration: timedelta) -> None:
    whole, micro = duration.days * 86400 + duration.seconds, duration.microseconds
    text = f"{whole // 3600}h{whole // 60 % 60}m{whole % 60}.{micro:06d}s"
    assert seconds(text) == pytest.approx(duration.total_seconds())


@pytest.mark.parametrize("text", ["", "soon", "3", "3s later", "-3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        seconds(text)


@pytest.mark.parametrize(
    "answer",
    [
        NomadRefusedError(403, "Permission denied", "GET agent/self"),
        {},
        {"stats": {"nomad": {"server": "true"}}},
        told("soon", "12s"),
        "",
    ],
)
def test_where_nothing_can_be_said_nothing_is_begun_anew(answer: object) -> None:
    assert heartbeat(Agent(answer)) is None
    assert not is_silent(Agent(answer))


def test_a_client_that_is_accepted_is_asked_once() -> None:
    agent = Agent(FRESH)
    assert not is_silent(agent)
    assert agent.asked == 1


def test_one_whose_servers_were_away_gets_time_to_try_again() -> None:
    assert not is_silent(Agent(OVERDUE, OVERDUE, OVERDUE, FRESH))


def test_one_that_stays_refused_is_silent() -> None:
    assert heartbeat(Agent(OVERDUE)) == Heartbeat(90.5, 12.5)
    assert is_silent(Agent(OVERDUE))
    assert is_silent(Agent(told("2562047h47m16.854775807s", "0s"))), "it was never accepted"


def test_the_reasons_one_by_one() -> None:
    lost = ["acl", "policy", "snapshot token"]
    assert set_up_anew(lost, first=False, at_work=True, begun=False)
    assert not set_up_anew([], first=False, at_work=True, begun=False), "a run that set nothing up"
    assert not set_up_anew(["policy"], first=False, at_work=True, begun=False), "a policy of another release"
    assert not set_up_anew(lost, first=True, at_work=True, begun=False), "the server, which began anew to lose it"
    assert not set_up_anew(lost, first=False, at_work=False, begun=False), "a machine that is new"
    assert not set_up_anew(lost, first=False, at_work=True, begun=True), "a machine that this run has begun anew"


def test_every_node_that_is_reached_asks_for_another_identity() -> None:
    servers = Servers(one=True, two=False, three=True)
    assert renew(servers) == ["two"]
    assert servers.renewed == ["one", "three"]
    assert renew(Servers()) == []
