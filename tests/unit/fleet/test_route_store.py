"""Where a trained router is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from roost.fleet import route_store
from roost.fleet.agent_jobs import ROUTE_VARIABLE
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.fleet.route_store import FileRouteStore, NomadRouteStore, Routers, RouteStore, replace_router, undo
from roost.ops.errors import RoostError


class Nomad:
    """A variable with check-and-set; says nothing about how the real one behaves beyond that."""

    def __init__(self) -> None:
        self.items: dict[str, str] | None = None
        self.index = 0
        self.refuse: NomadRefusedError | None = None

    def get(self, path: str) -> dict[str, Any]:
        """Return the variable."""
        assert path == f"var/{ROUTE_VARIABLE}"
        if self.items is None:
            raise NomadRefusedError(404, "variable not found", path)
        return {"Items": dict(self.items), "ModifyIndex": self.index}

    def put(self, path: str, body: dict[str, Any], *, cas: str) -> None:
        """Store it if it still has that index."""
        if self.refuse:
            raise self.refuse
        if cas != str(self.index):
            raise NomadRefusedError(409, "cas error", path)
        self.items, self.index = body["Items"], self.index + 1


@pytest.fixture(params=["nomad", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], RouteStore]:
    """Return what opens the same store anew."""
    nomad = Nomad()
    if request.param == "nomad":
        return lambda: NomadRouteStore(cast("NomadClient", nomad))
    return lambda: FileRouteStore(tmp_path / "router.json")


def test_the_router_before_is_kept_and_comes_back(make: Callable[[], RouteStore]) -> None:
    replace_router(make(), "one")
    replace_router(make(), "two")
    replace_router(make(), "two")
    assert make().load()[0] == Routers("two", "one")
    assert undo(make()) == Routers("one", "two")
    assert undo(make()).present == "two"
    replace_router(make(), "")
    assert make().load()[0] == Routers("", "two")


def test_of_two_changes_at_once_one_is_told(make: Callable[[], RouteStore]) -> None:
    store = make()
    routers, version = store.load()
    replace_router(make(), "theirs")
    with pytest.raises(RoostError, match="somebody else"):
        store.save(routers, version)
    assert make().load()[0].present == "theirs"


def test_without_one_before_there_is_nothing_to_undo(make: Callable[[], RouteStore]) -> None:
    with pytest.raises(RoostError, match="no router before"):
        undo(make())


def test_a_variable_that_is_too_large_says_so() -> None:
    nomad = Nomad()
    nomad.refuse = NomadRefusedError(400, "variables are limited to 64KiB in total size", "var")
    with pytest.raises(RoostError, match="64KiB"):
        replace_router(NomadRouteStore(cast("NomadClient", nomad)), "x")


def test_the_playbook_makes_the_variable_once_and_keeps_what_is_in_it() -> None:
    nomad = Nomad()
    client = cast("NomadClient", nomad)
    assert route_store.ensure_variable_exists(client, dry_run=True)
    assert nomad.items is None
    assert route_store.ensure_variable_exists(client)
    replace_router(NomadRouteStore(client), "mine")
    assert not route_store.ensure_variable_exists(client)
    assert NomadRouteStore(client).load()[0].present == "mine"


def test_a_folder_that_is_not_there_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="cannot be written"):
        replace_router(FileRouteStore(tmp_path / "none" / "router"), "x")
