"""Nothing of it is left on either machine."""

from __future__ import annotations

import os

import pytest
from tests.hosts.scenario import Scenario


@pytest.mark.parametrize("name", ["fleet-a", "fleet-b"])
def test_each_machine_is_as_it_was(name: str) -> None:
    assert Scenario(os.environ).compare(name) == ""
