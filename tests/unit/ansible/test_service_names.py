"""Names of Roost's own services stand once in Ansible and once in Python, and are the same."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from roost.ops import service_names

ROOT = Path(__file__).parents[3]
PREFIX = "service_"
IN_ANSIBLE: dict[str, str] = {
    name.removeprefix(PREFIX).upper(): value
    for name, value in yaml.safe_load((ROOT / "group_vars/fleet.yaml").read_text()).items()
    if name.startswith(PREFIX)
}
IN_PYTHON = {name: value for name, value in vars(service_names).items() if name.isupper()}
LITERAL = re.compile(
    rf"(?<![\w.-])({'|'.join(sorted({*IN_ANSIBLE.values(), *IN_PYTHON.values()}, key=len)[::-1])})(?![\w-])"
)


def written(folder: str, *patterns: str) -> dict[str, list[str]]:
    """Return the files below a folder that write a service's name, with what they write."""
    files = [path for pattern in patterns for path in (ROOT / folder).rglob(pattern)]
    assert files
    return {str(path.relative_to(ROOT)): found for path in files if (found := LITERAL.findall(path.read_text()))}


def test_both_languages_call_a_service_the_same() -> None:
    shared = IN_ANSIBLE.keys() & IN_PYTHON.keys()
    assert shared == {"DOCKER", "FIREWALL", "LISTEN", "NOMAD", "REGISTRY"}
    assert {name: IN_ANSIBLE[name] for name in shared} == {name: IN_PYTHON[name] for name in shared}


def test_roles_take_the_names_from_one_place() -> None:
    assert written("ansible/roles", "*.yml", "*.j2") == {}


def test_python_takes_the_names_from_one_place() -> None:
    assert set(written("app/roost", "*.py")) == {"app/roost/ops/service_names.py"}
    modules = written("ansible/plugins", "*.py")
    examples = ("roost_service", "roost_docker_settings")
    assert modules == {f"ansible/plugins/modules/{name}.py": ["roost-nomad"] for name in examples}
