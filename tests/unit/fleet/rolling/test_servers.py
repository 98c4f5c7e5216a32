"""Servers of Nomad: how many there may be, when one may begin anew, and who leads meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.nomad_api import NomadClient, NomadRefusedError, NomadUnreachableError
from roost.fleet.rolling import servers
from roost.fleet.rolling.servers import (
    RaftServer,
    choice_problem,
    forget_server,
    get_ready,
    leave_problem,
    remove_peer,
    restart_problem,
    step_down,
    wait_healthy,
)
from roost.ops.errors import RoostError


def test_servers_are_one_three_or_five_of_the_fleet() -> None:
    machines = [f"m{number}" for number in range(6)]
    for count in range(7):
        problem = choice_problem(machines[:count], machines)
        assert bool(problem) == (count not in (1, 3, 5)), count
    assert "names stranger" in choice_problem(["m0", "m1", "stranger"], machines)


def server(number: int, *, leader: bool = False, healthy: bool = True, voter: bool = True) -> RaftServer:
    return RaftServer(f"id{number}", f"m{number}.global", f"192.0.2.{number}:4647", leader, voter, healthy, "1")


def test_a_server_is_not_begun_anew_where_no_majority_would_be_left() -> None:
    three = [server(1, leader=True), server(2), server(3)]
    assert restart_problem(three, "192.0.2.1:4647") == ""
    ill = [three[0], three[1], server(3, healthy=False)]
    assert "not healthy: m3" in restart_problem(ill, "192.0.2.1:4647")
    assert restart_problem(ill, "192.0.2.3:4647") == "", "the ill one itself may"
    assert restart_problem(ill[:1], "192.0.2.1:4647") == ""
    assert restart_problem(ill, "192.0.2.9:4647") == ""


@given(st.lists(st.booleans(), min_size=2, max_size=5))
def test_what_may_begin_anew_leaves_a_majority(healthy: list[bool]) -> None:
    found = [server(number, healthy=well) for number, well in enumerate(healthy)]
    for one in found:
        if not restart_problem(found, one.address):
            assert sum(other.healthy for other in found if other != one) * 2 > len(found)


class FakeNomad:
    """Three servers; leadership moves at once, as far as it may."""

    def __init__(
        self, *, stuck: bool = False, ill: str = "", refuses: bool = False, recovers: int = -1, voteless: str = "",
        refusals: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.transfers = list(refusals)  # with which status a transfer is refused before one succeeds
        self.recovers, self.voteless = recovers, voteless  # after so many looks; who is new, and has no vote till then
        self.leads, self.stuck, self.ill, self.refuses = "192.0.2.1:4647", stuck, ill, refuses
        self.asked: list[str] = []

    def get(self, path: str) -> dict[str, Any]:
        assert path == "operator/autopilot/health"
        if self.refuses:
            raise NomadUnreachableError("nothing there")
        if self.recovers == 0:
            self.ill = self.voteless = ""
        self.recovers -= 1
        found = {
            "Servers": [
                {
                    "ID": f"id{n}", "Name": f"m{n}.global", "Address": f"192.0.2.{n}:4647",
                    "Voter": self.voteless != f"m{n}",
                    "Leader": self.leads == f"192.0.2.{n}:4647", "Healthy": self.ill != f"m{n}", "Version": "1.11.3",
                }
                for n in (1, 2, 3)
            ]
        }  # fmt: skip
        if self.ill:
            raise NomadRefusedError(429, json.dumps(found), path)
        return found

    def put(self, path: str, _body: object, **params: str) -> None:
        assert path == "operator/raft/transfer-leadership"
        self.asked.append(params["id"])
        if self.transfers:
            raise NomadRefusedError(self.transfers.pop(0), "leadership transfer timeout", path)
        if not self.stuck:
            self.leads = f"192.0.2.{params['id'][2:]}:4647"

    def leader(self) -> str:
        return self.leads


@pytest.fixture(autouse=True)
def saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save a snapshot without a Nomad; `roost.fleet.snapshots` has tests of its own."""

    def save(_client: object, _folder: Path, *, out: Path, **_more: object) -> None:
        out.write_bytes(b"state of all")

    monkeypatch.setattr(servers, "save", save)


def ready(
    nomad: FakeNomad, mine: str, folder: Path, leader: str = "m3", timeout_s: float = 1, *, lost: bool = False
) -> tuple[str, bool]:
    client = cast("NomadClient", nomad)
    return get_ready(
        client, mine, folder=folder, label="before-2", leader=leader, timeout_s=timeout_s, set_up_anew=lambda: lost
    )


def test_the_leader_hands_over_and_others_have_nothing_to_hand_over(tmp_path: Path) -> None:
    nomad = FakeNomad()
    kept, moved = ready(nomad, "192.0.2.1:4647", tmp_path / "snapshots")
    assert moved
    assert nomad.leads == "192.0.2.3:4647"
    assert Path(kept).read_bytes() == b"state of all"
    assert Path(kept).name.endswith("-before-2.snap")
    assert ready(nomad, "192.0.2.2:4647", tmp_path / "snapshots")[1] is False
    assert nomad.asked == ["id3"]


def test_a_transfer_for_which_raft_had_too_little_time_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "REFUSED_PAUSE_S", 0.0)
    nomad = FakeNomad(refusals=[500, 500])
    assert ready(nomad, "192.0.2.1:4647", tmp_path, timeout_s=30)[1]
    assert (nomad.leads, nomad.asked) == ("192.0.2.3:4647", ["id3"] * 3)
    nomad = FakeNomad(refusals=[500, 500, 500])
    assert ready(nomad, "192.0.2.1:4647", tmp_path, timeout_s=30)[1]
    assert (nomad.leads, nomad.asked) == ("192.0.2.2:4647", ["id3"] * 3 + ["id2"]), "the preferred one cannot"
    with pytest.raises(RoostError, match="did not move to m3 within 0 s: leadership transfer timeout"):
        ready(FakeNomad(refusals=[500] * 100_000), "192.0.2.1:4647", tmp_path, timeout_s=0.1)
    with pytest.raises(NomadRefusedError, match="403"):
        ready(FakeNomad(refusals=[403]), "192.0.2.1:4647", tmp_path)


def test_one_that_is_ill_is_not_made_the_leader(tmp_path: Path) -> None:
    nomad = FakeNomad(ill="m3")
    with pytest.raises(RoostError, match="no majority"):
        ready(nomad, "192.0.2.1:4647", tmp_path)
    assert nomad.asked == []
    assert not list(tmp_path.iterdir())


def test_one_that_was_late_once_is_waited_for(tmp_path: Path) -> None:
    nomad = FakeNomad(ill="m3", recovers=2)
    assert ready(nomad, "192.0.2.1:4647", tmp_path, timeout_s=30)[1]
    assert nomad.asked == ["id3"]


def test_new_servers_are_waited_for_until_they_vote(tmp_path: Path) -> None:
    """A fleet that grows from one server: for a moment two vote, of which neither can be spared."""
    nomad = FakeNomad(voteless="m3", recovers=2)
    assert ready(nomad, "192.0.2.1:4647", tmp_path, timeout_s=30)[0]
    nomad = FakeNomad(voteless="m3", recovers=2)
    assert ready(nomad, "192.0.2.3:4647", tmp_path, timeout_s=30)[0]
    assert nomad.voteless == "", "also where it could be spared: what it is to know is not settled yet"
    with pytest.raises(RoostError, match=r"1 of 2 servers would be left, no majority \(no vote yet: m3\)"):
        ready(FakeNomad(voteless="m3"), "192.0.2.1:4647", tmp_path, timeout_s=0.1)


class ElectingNomad(FakeNomad):
    """One whose servers have no leader for so many looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def get(self, path: str) -> dict[str, Any]:
        self.looks -= 1
        if self.looks >= 0:
            raise NomadRefusedError(500, "No cluster leader", path)
        return super().get(path)


def test_an_election_is_waited_for_before_a_server_is_begun_anew(tmp_path: Path) -> None:
    nomad = ElectingNomad(2)
    kept, moved = ready(nomad, "192.0.2.1:4647", tmp_path, timeout_s=30)
    assert (Path(kept).read_bytes(), moved) == (b"state of all", True)
    assert ready(ElectingNomad(99), "192.0.2.1:4647", tmp_path, timeout_s=0.1) == ("", False), "it may be what mends it"


class RefusingNomad(FakeNomad):
    """One that does not say how its servers are."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    def get(self, path: str) -> dict[str, Any]:
        raise NomadRefusedError(self.status, "Permission denied", path)


@pytest.mark.parametrize("status", [400, 403, 404])
def test_one_that_may_not_be_asked_is_not_begun_anew(tmp_path: Path, status: int) -> None:
    """Whether the others are a majority is not known then, and no snapshot can be had."""
    with pytest.raises(RoostError, match=rf"192\.0\.2\.1:4647 is not begun anew: .*{status} Permission denied.*Fix: "):
        ready(RefusingNomad(status), "192.0.2.1:4647", tmp_path)


def test_one_without_state_has_none_to_lose(tmp_path: Path) -> None:
    """A first run that was broken off before access control was set up goes on."""
    assert ready(RefusingNomad(403), "192.0.2.1:4647", tmp_path, lost=True) == ("", False)


def test_a_leadership_that_stays_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="did not move to m3"):
        ready(FakeNomad(stuck=True), "192.0.2.1:4647", tmp_path, timeout_s=0.1)


def test_where_no_nomad_answers_there_is_nothing_to_lose(tmp_path: Path) -> None:
    assert ready(FakeNomad(refuses=True), "192.0.2.1:4647", tmp_path) == ("", False)


def test_only_the_latest_snapshots_stay(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"2026010{number}T000000Z-old.snap").write_bytes(b"")
    path = servers.snapshot(cast("NomadClient", FakeNomad()), tmp_path, "new")
    left = sorted(tmp_path.iterdir())
    assert len(left) == servers.KEPT_SNAPSHOTS
    assert left[-1] == path


def test_a_server_has_to_come_back() -> None:
    wait_healthy(cast("NomadClient", FakeNomad()), "192.0.2.2:4647", 1)
    with pytest.raises(RoostError, match="autopilot calls it ill"):
        wait_healthy(cast("NomadClient", FakeNomad(ill="m2")), "192.0.2.2:4647", 0.1)
    with pytest.raises(RoostError, match="not among the servers"):
        wait_healthy(cast("NomadClient", FakeNomad()), "192.0.2.9:4647", 0.1)


def test_one_of_two_may_leave_though_it_may_not_begin_anew() -> None:
    two = [server(1, leader=True), server(2)]
    assert restart_problem(two, "192.0.2.1:4647")
    assert leave_problem(two, "192.0.2.2:4647") == ""
    assert "not healthy: m1" in leave_problem([server(1, healthy=False), server(2)], "192.0.2.2:4647")
    assert leave_problem([server(1)], "192.0.2.1:4647") == "no other server would be left"
    assert leave_problem(two, "192.0.2.9:4647") == ""


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_whoever_leaves_leaves_a_majority_of_those_that_stay(states: list[tuple[bool, bool]]) -> None:
    found = [server(number, healthy=well, voter=votes) for number, (well, votes) in enumerate(states)]
    for one in found:
        if not leave_problem(found, one.address):
            others = [other for other in found if other is not one and other.voter]
            assert sum(other.healthy for other in others) * 2 > len(others)


class LeavingNomad(FakeNomad):
    """One whose peers can be removed."""

    def __init__(self, *, ill: str = "", refusals: Sequence[NomadRefusedError] = (), deaf: bool = False) -> None:
        super().__init__(ill=ill)
        self.done: list[str] = []
        self.refusals, self.deaf = list(refusals), deaf  # what it answers to removals at first; whether it does them
        self.voters = {"id1": True, "id2": True}

    def get(self, path: str) -> dict[str, Any]:
        if path == "operator/raft/configuration":
            return {
                "Servers": [
                    {"ID": name, "Address": f"192.0.2.{name[2:]}:4647", "Voter": votes}
                    for name, votes in self.voters.items()
                ]
            }
        if path == "agent/members":
            return {"Members": [{"Name": f"m{n}.global", "Addr": f"192.0.2.{n}"} for n in (1, 2)]}
        return super().get(path)

    def put(self, path: str, _body: object, **params: str) -> None:
        if path != "agent/force-leave":
            super().put(path, _body, **params)
        self.done.append(f"{path} {params.get('id') or params.get('node')}")

    def request(self, method: str, path: str, *, params: dict[str, str]) -> None:
        self.done.append(f"{method} {path} {params['id']}")
        if self.refusals:
            raise self.refusals.pop(0)
        if not self.deaf:
            del self.voters[params["id"]]


def leave(nomad: FakeNomad, mine: str, folder: Path, *, lost: bool = False) -> tuple[str, bool]:
    client = cast("NomadClient", nomad)
    return step_down(
        client, mine, folder=folder, label="before-it-leaves", leader="m3", timeout_s=1, set_up_anew=lambda: lost
    )


@pytest.mark.parametrize("status", [400, 403, 404])
def test_nobody_leaves_where_it_may_not_be_asked_whether_others_are_left(tmp_path: Path, status: int) -> None:
    with pytest.raises(RoostError, match=rf"may still be a server.*{status} Permission denied.*Fix: See that the file"):
        leave(RefusingNomad(status), "192.0.2.1:4647", tmp_path)


def test_where_there_is_no_state_nobody_was_a_server(tmp_path: Path) -> None:
    assert leave(RefusingNomad(403), "192.0.2.1:4647", tmp_path, lost=True) == ("", False)


def test_a_leader_that_leaves_hands_over_first_and_the_state_is_kept(tmp_path: Path) -> None:
    nomad = LeavingNomad()
    kept, left = leave(nomad, "192.0.2.1:4647", tmp_path)
    assert left
    assert Path(kept).read_bytes() == b"state of all"
    assert nomad.done == ["operator/raft/transfer-leadership id3", "DELETE operator/raft/peer id1"]
    assert leave(LeavingNomad(), "192.0.2.9:4647", tmp_path) == ("", False), "no server leaves nothing"


def refusal(text: str, status: int = 500) -> NomadRefusedError:
    return NomadRefusedError(status, text, "DELETE operator/raft/peer")


def test_a_removal_that_is_refused_while_nobody_leads_is_tried_again(tmp_path: Path) -> None:
    nomad = LeavingNomad(refusals=[refusal("No cluster leader"), refusal("rpc error: leadership lost")])
    assert leave(nomad, "192.0.2.2:4647", tmp_path)[1]
    assert nomad.done == ["DELETE operator/raft/peer id2"] * 3
    assert nomad.voters == {"id1": True}


def test_one_that_still_votes_has_not_left(tmp_path: Path) -> None:
    for nomad in (LeavingNomad(deaf=True), LeavingNomad(refusals=[refusal("No cluster leader")] * 99)):
        with pytest.raises(RoostError, match=r"server id2 was not taken from the others within 1 s: .*(votes|leader)"):
            leave(nomad, "192.0.2.2:4647", tmp_path)


def test_one_that_may_not_be_removed_is_an_error_at_once() -> None:
    for status in (400, 403):
        nomad = LeavingNomad(refusals=[refusal("no", status)])
        with pytest.raises(NomadRefusedError):
            remove_peer(cast("NomadClient", nomad), "id2")
        assert nomad.done == ["DELETE operator/raft/peer id2"]


def test_one_that_was_no_member_or_came_back_without_a_vote_is_fine() -> None:
    nomad = LeavingNomad(refusals=[refusal('rpc error: id "id9" was not found in the Raft configuration')])
    remove_peer(cast("NomadClient", nomad), "id9", 0)
    nomad = LeavingNomad(deaf=True)
    nomad.voters["id2"] = False
    remove_peer(cast("NomadClient", nomad), "id2", 0)


def test_servers_without_a_leader_are_waited_for_before_one_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nomad = LeavingNomad()
    unled = [refusal("No cluster leader")] * 2
    look = nomad.get

    def get(path: str) -> dict[str, Any]:
        if path == "operator/autopilot/health" and unled:
            raise unled.pop()
        return look(path)

    monkeypatch.setattr(nomad, "get", get)
    assert leave(nomad, "192.0.2.2:4647", tmp_path)[1]
    unled += [refusal("No cluster leader")] * 99
    with pytest.raises(RoostError, match=r"192\.0\.2\.2:4647 may still be a server"):
        leave(nomad, "192.0.2.2:4647", tmp_path)


def test_none_leaves_where_the_others_could_decide_nothing(tmp_path: Path) -> None:
    nomad = LeavingNomad(ill="m3")
    with pytest.raises(RoostError, match=r"m1 stays a server of Nomad: 1 of the 2 that stay .* m3"):
        leave(nomad, "192.0.2.1:4647", tmp_path)
    assert nomad.done == []


def test_the_others_forget_a_server_that_left() -> None:
    nomad = LeavingNomad()
    assert forget_server(cast("NomadClient", nomad), "192.0.2.2:4647")
    assert nomad.done == ["DELETE operator/raft/peer id2", "agent/force-leave m2.global"]
    assert not forget_server(cast("NomadClient", nomad), "192.0.2.9:4647")
