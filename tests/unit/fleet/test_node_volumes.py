"""Whether a job that wants a volume could be placed on every node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.node_volumes import GATEWAY_TLS, all_have, described
from roost.fleet.nomad_api import Json

VOLUMES = st.sets(st.sampled_from([GATEWAY_TLS, "roost-models"]))
NODES = st.lists(st.tuples(st.sampled_from(["ready", "initializing", "disconnected", "down"]), VOLUMES))


def node(status: str, *volumes: str) -> dict[str, Json]:
    return {"Status": status, "HostVolumes": {name: {"Path": "/srv"} for name in volumes} or None}


def test_one_that_lacks_it_is_enough() -> None:
    assert all_have([node("ready", GATEWAY_TLS), node("ready", GATEWAY_TLS, "roost-models")], GATEWAY_TLS)
    assert not all_have([node("ready", GATEWAY_TLS), node("ready", "roost-models")], GATEWAY_TLS)
    assert not all_have([node("ready", GATEWAY_TLS), node("ready")], GATEWAY_TLS)


def test_one_that_is_down_does_not_count_and_one_that_is_away_does() -> None:
    assert all_have([node("ready", GATEWAY_TLS), node("down")], GATEWAY_TLS)
    assert not all_have([node("ready", GATEWAY_TLS), node("disconnected")], GATEWAY_TLS)


def test_where_nobody_is_known_nobody_has_it() -> None:
    assert not all_have([], GATEWAY_TLS)
    assert not all_have([node("down", GATEWAY_TLS)], GATEWAY_TLS)


@given(NODES)
def test_another_node_that_lacks_it_never_makes_it_true(nodes: list[tuple[str, set[str]]]) -> None:
    known = [node(status, *volumes) for status, volumes in nodes]
    assert not all_have([*known, node("ready")], GATEWAY_TLS)
    assert all_have(known, GATEWAY_TLS) == all_have(list(reversed(known)), GATEWAY_TLS)


def test_each_node_is_asked_for_its_own_volumes() -> None:
    class Fleet:
        def get(self, path: str) -> Json:
            answers: dict[str, Json] = {
                "nodes": [{"ID": "a"}, {"ID": "b"}],
                "node/a": node("ready", GATEWAY_TLS),
                "node/b": node("ready"),
            }
            return answers[path]

    assert [bool(found["HostVolumes"]) for found in described(Fleet())] == [True, False]
