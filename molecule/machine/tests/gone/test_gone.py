"""Nothing of it is left after the uninstall; what was there before still is."""

from __future__ import annotations

import os

from tests.hosts.scenario import Scenario


def test_the_machine_is_as_it_was() -> None:
    assert Scenario(os.environ).compare("machine-1") == ""
