"""Which model servers can go on with each other's streams: those of the same file, as far as that can be known."""

from __future__ import annotations

import pytest

from roost.engines.llama_continue import fingerprint

META = {"size": 1000, "n_params": 500, "ftype": "Q4_K", "n_vocab": 32000}
STORED = "/models/0123456789abcdef/model.gguf"
OWN = "/srv/models/model.gguf"


@pytest.mark.parametrize(
    ("path", "host", "other_path", "other_host", "same"),
    [
        (STORED, "a", STORED, "b", True),  # a folder of the store is called by its content
        (STORED, "a", STORED.replace("/models/", "/var/lib/roost/models/"), "b", True),
        (STORED, "a", STORED.replace("0123", "4567"), "a", False),
        (OWN, "a", OWN, "a", True),
        (OWN, "a", OWN, "b", False),  # two files of one name: of their content nothing is known
        (OWN, "a", OWN.replace("srv", "opt"), "a", False),
    ],
)
def test_a_file_is_the_same_if_that_is_known(
    path: str, host: str, other_path: str, other_host: str, *, same: bool
) -> None:
    one, other = fingerprint(META, path, "{{x}}", host), fingerprint(META, other_path, "{{x}}", other_host)
    assert one
    assert (one == other) is same


def test_another_template_is_another_model_and_what_says_too_little_is_none() -> None:
    assert fingerprint(META, STORED, "{{x}}", "a") != fingerprint(META, STORED, "{{y}}", "a")
    assert fingerprint({"size": 1000}, STORED, "{{x}}", "a") == ""
