"""How far the update of each machine came is there for all to see."""

from __future__ import annotations

from typing import Any, cast

from roost.fleet.nomad_api import NomadClient, NomadRefusedError, NomadUnreachableError
from roost.fleet.rolling.progress import publish, published, turns
from roost.fleet.rolling.record import UpdateRecord


class FakeNomad:
    """A variable that others change at the same time, so many times."""

    def __init__(self, conflicts: int = 0, *, gone: bool = False) -> None:
        self.items: dict[str, str] | None = None
        self.conflicts, self.gone, self.index = conflicts, gone, 0

    def get(self, path: str) -> dict[str, Any]:
        if self.gone:
            raise NomadUnreachableError("nothing there")
        if self.items is None:
            raise NomadRefusedError(404, "none", path)
        return {"Items": self.items, "ModifyIndex": self.index}

    def put(self, path: str, body: dict[str, Any], cas: int) -> None:
        if self.conflicts:
            self.conflicts -= 1
            raise NomadRefusedError(409, "conflict", path)
        assert cas == self.index
        self.items, self.index = body["Items"], self.index + 1


def test_each_machine_writes_its_own_and_keeps_the_others() -> None:
    nomad = FakeNomad(conflicts=2)
    client = cast("NomadClient", nomad)
    assert published(client) == {}
    assert publish(client, "one", UpdateRecord("passed", "s", "m", "r1", "now"))
    assert publish(client, "two", UpdateRecord("restored", "s", "m", "r2", "now", "why"))
    assert publish(client, "two", UpdateRecord("restored", "s", "m", "r2", "now", "why"))
    assert nomad.index == 2
    found = published(client)
    assert found["one"] == {"state": "passed", "release": "r1", "at": "now", "reason": ""}
    assert found["two"]["reason"] == "why"


def test_what_cannot_be_read_of_one_machine_hides_no_other() -> None:
    nomad = FakeNomad()
    client = cast("NomadClient", nomad)
    assert publish(client, "one", UpdateRecord("passed", "s", "m", "r1", "now"))
    assert nomad.items
    nomad.items |= {"two": "{", "three": "[1]"}
    assert list(published(client)) == ["one"]
    assert publish(client, "two", UpdateRecord("passed", "s", "m", "r2", "now"))
    assert sorted(published(client)) == ["one", "two"]


def test_where_that_is_not_possible_the_update_goes_on() -> None:
    record = UpdateRecord("passed", "s")
    assert not publish(cast("NomadClient", FakeNomad(gone=True)), "one", record)
    assert not publish(cast("NomadClient", FakeNomad(conflicts=99)), "one", record)


def test_turns_are_counted_and_what_is_not_known_is_empty() -> None:
    found = turns([["one"], ["two", "three"]], {"two": "left"}, ["one"], {"one": {"state": "passed"}})
    assert [(t.batch, t.machine, t.domain, t.server, t.state) for t in found] == [
        (1, "one", "", True, "passed"), (2, "two", "left", False, ""), (2, "three", "", False, ""),
    ]  # fmt: skip
