"""Who plays which role."""

from __future__ import annotations

import pytest

from roost.agent.delegation import AgentRole, Candidate, DelegationMode, delegate
from roost.ops.errors import RoostError

MAIN = Candidate("qwen3-8b", slot="main")
ROUTER = Candidate("functiongemma-270m", slot="router")
SPECIALIST = Candidate("qwen3-coder-30b", slot="specialist")
CLOUD = Candidate("gpt-tool", auto=False)


@pytest.mark.parametrize(
    ("models", "mode", "names"),
    [
        ([MAIN, ROUTER, SPECIALIST], DelegationMode.TRIO, ["qwen3-8b", "functiongemma-270m", "qwen3-coder-30b"]),
        ([SPECIALIST, ROUTER, MAIN], DelegationMode.TRIO, ["qwen3-8b", "functiongemma-270m", "qwen3-coder-30b"]),
        ([MAIN, SPECIALIST], DelegationMode.DUO, ["qwen3-8b", "qwen3-coder-30b", "qwen3-coder-30b"]),
        ([MAIN, ROUTER], DelegationMode.DUO, ["qwen3-8b", "functiongemma-270m", "qwen3-8b"]),
        ([MAIN], DelegationMode.SINGLE, ["qwen3-8b"] * 3),
        ([Candidate("smollm2")], DelegationMode.SINGLE, ["smollm2"] * 3),
        ([MAIN, Candidate("some-coder")], DelegationMode.DUO, ["qwen3-8b", "some-coder", "some-coder"]),
        ([MAIN, CLOUD], DelegationMode.SINGLE, ["qwen3-8b"] * 3),
        ([MAIN, Candidate("embed-tool", generates=False)], DelegationMode.SINGLE, ["qwen3-8b"] * 3),
    ],
)
def test_the_mode_follows_from_the_models(models: list[Candidate], mode: DelegationMode, names: list[str]) -> None:
    found = delegate(models)
    assert found.mode == mode
    assert [found[role].name for role in AgentRole] == names
    assert all(role.value in found.why for role in AgentRole)


def test_what_is_not_there_is_said() -> None:
    for models in ([], [CLOUD], [Candidate("embed", generates=False)]):
        with pytest.raises(RoostError, match="no model to talk to"):
            delegate(models)
