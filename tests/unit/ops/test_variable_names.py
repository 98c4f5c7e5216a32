"""Names of variables that are no longer, or never were."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from roost.ops.errors import RoostError
from roost.ops.host_file import parse_settings
from roost.ops.variable_names import RENAMED, examine, renamed

ROOT = Path(__file__).parents[3]
KNOWN = {"api_port", "roost_group", "model_slots", "engine"}


def variables(name: str) -> set[str]:
    return set(yaml.safe_load((ROOT / "group_vars" / name).read_text()))


def test_old_names_lead_to_variables_that_there_are() -> None:
    assert {entry.new for entry in RENAMED if entry.new} <= variables("all.yaml")
    assert not {entry.old for entry in RENAMED} & variables("all.yaml")
    assert all(entry.new or entry.why for entry in RENAMED)


def test_an_old_name_is_an_error_that_says_the_new_one() -> None:
    found = examine(["api_names", "model_peers", "api_port"], KNOWN)
    assert len(found.errors) == 2
    assert "api_names_custom" in found.errors[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [("api_prot", "Did you mean api_port?"), ("roost_thing", "nothing reads it"), ("fleet_many", "computed")],
)
def test_a_slip_is_a_warning(name: str, said: str) -> None:
    found = examine([name], KNOWN, {"fleet_many"})
    assert not found.errors
    assert said in found.warnings[0]


@pytest.mark.parametrize("name", ["ansible_user", "my_own", "location", "rack", "api_port", "engine", "groups"])
def test_what_is_known_or_nobodys_business_is_passed_over(name: str) -> None:
    assert examine([name], KNOWN) == examine([], KNOWN)


def test_set_knows_old_names_too() -> None:
    with pytest.raises(RoostError, match="now called api_names_custom"):
        parse_settings(["api_names=[a]"], {"api_names_custom": []})
    assert renamed("api_port") == ""
