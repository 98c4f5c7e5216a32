"""Which tools of servers a model is shown, and that what serves models never loads the protocol."""

from __future__ import annotations

import subprocess
import sys

from roost.agent.foreign import MOST_FOREIGN, tool_set
from roost.agent.tool import Permission, ToolSpec
from tests.support.gateway import REPOSITORY


def tool(name: str, about: str = "", permission: Permission = Permission.FOREIGN) -> ToolSpec:
    return ToolSpec(name=name, description=about, parameters={"type": "object"}, permission=permission)


def test_a_few_are_all_shown_and_of_many_those_that_a_request_is_about() -> None:
    own = tool("read", permission=Permission.READ)
    few = [own, *(tool(f"mcp__a__t{number}") for number in range(MOST_FOREIGN))]
    assert tool_set("anything", few) == few
    many = [*few, tool("mcp__weather__forecast", "The weather of a town."), tool("mcp__b__rare")]
    shown = [spec.name for spec in tool_set("What will the weather be in Graz?", many)]
    assert "mcp__weather__forecast" in shown
    assert shown[0] == "read"
    assert len(shown) == MOST_FOREIGN + 1
    assert "mcp__b__rare" in [spec.name for spec in tool_set("Use mcp__b__rare", many)]
    order = [spec.name for spec in many if spec.name in shown]
    assert shown == order


def test_gateway_and_hub_do_not_load_the_package_of_the_protocol() -> None:
    code = (
        "import sys, roost.cli.serve, roost.agent.hub, roost.agent.channel.desk, roost.cli.worker\n"
        "print([name for name in sys.modules if name.split('.')[0] in {'mcp', 'mcp_types', 'httpx2', 'jsonschema'}])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={"PYTHONPATH": str(REPOSITORY / "app")}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
