"""`--set NAME=VALUE`: what a value becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.ops.errors import RoostError
from roost.ops.host_file import load, parse_settings
from roost.ops.variable_values import load_specs, problems

DEFAULTS: dict[str, object] = {"text": "20.10", "number": 1, "switch": False, "made": "{{ ['a'] }}"}


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("text=20.10", "text", "20.10"),
        ("text=No", "text", "No"),
        ("text='No'", "text", "No"),
        ("text=2026-01-02", "text", "2026-01-02"),
        ("text=", "text", None),
        ("number=20", "number", 20),
        ("switch=yes", "switch", True),
        ("made=[b, c]", "made", ["b", "c"]),
    ],
)
def test_a_text_stays_what_was_written(word: str, name: str, value: object) -> None:
    assert parse_settings([word], DEFAULTS) == {name: value}


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("number=abc", "a whole number"),
        ("number=1.5", "a whole number"),
        ("number=true", "a whole number"),
        ("switch=1", "true or false"),
        ("list=x", "a list"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(word: str, wanted: str) -> None:
    with pytest.raises(RoostError, match=f"{word.partition('=')[0]} is {wanted}") as caught:
        parse_settings([word], {**DEFAULTS, "list": ["a"]})
    assert caught.value.exit_code == 2


def test_a_value_that_refers_to_another_is_left_to_ansible() -> None:
    assert parse_settings(["number='{{ other }}'"], DEFAULTS) == {"number": "{{ other }}"}


ROOT = Path(__file__).parents[3]
ALL = load((ROOT / "group_vars/all.yaml").read_text(), Path("all.yaml"))
SPECS = load_specs(ROOT / "ansible/roles")


@pytest.mark.parametrize(
    ("word", "said", "fix"),
    [
        (
            "api_port=99999",
            "api_port is a whole number from 1 to 65535, not '99999'.",
            "Its default is 8360; --set api_port=",
        ),
        ("api_port=0", "from 1 to 65535", "8360"),
        ("api_port=http", "api_port is a whole number from 1 to 65535, not 'http'.", "8360"),
        ("api_prot=9000", "There is no variable 'api_prot'.", "Did you mean api_port?"),
        ("=9000", "There is no variable ''.", "group_vars/all.yaml"),
        ("engine=vllm", "engine is one of llama.cpp, llama-cpp-python, not 'vllm'.", "Its default is llama.cpp"),
        ("monitoring=perhaps", "monitoring is true or false", "Its default is false"),
        ("otel_sample_ratio=2", "a number from 0 to 1", "1.0"),
        ("usage_watts=-1", "a number of 0 or more", "0"),
        ("model_slots=main", "model_slots is a list", "slot: main"),
        ("model_aliases=[a]", "model_aliases is a mapping", "Its default is {}"),
        ("roost_cache_dir=cache", "an absolute path", "/var/cache/roost"),
        ("images_from=hub", "one of copies, registry", "copies"),
        ("nomad_raft_multiplier=11", "from 1 to 10", "1"),
        ("api_listen_address=[a]", "api_listen_address is a text", "Its default is empty"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_may_stand_there(word: str, said: str, fix: str) -> None:
    with pytest.raises(RoostError) as caught:
        parse_settings([word], ALL, SPECS)
    assert said in caught.value.message
    assert fix in caught.value.fix
    assert caught.value.exit_code == 2


def test_a_value_that_may_hold_keys_is_not_shown() -> None:
    engines = [{"name": "brave", "api_key": "an-engines-key"}]
    (said,) = problems({"web_search_engines": str(engines)}, ALL, SPECS)
    assert said.startswith("web_search_engines is a list")
    assert "an-engines-key" not in said


def test_both_kinds_of_template_are_left_to_ansible() -> None:
    assert problems({"api_port": "{% if a %}8360{% else %}9000{% endif %}", "docker_hold": "{{ b }}"}, ALL, SPECS) == []


def test_every_default_is_a_value_that_may_stand_there() -> None:
    assert problems(ALL, ALL, SPECS) == []
