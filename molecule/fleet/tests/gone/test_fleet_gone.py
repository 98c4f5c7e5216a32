"""Nothing of it is left on either machine but the accounts of operators, which may be the one way onto it."""

from __future__ import annotations

import os
import re

import pytest
import testinfra
from tests.hosts.scenario import Scenario

OPERATORS = ["ada", "brian"]
THEIRS = re.compile(
    r"[+] file: /home/(ada|brian)(/|$)|[+] (users|groups): (ada|brian):|[+-] groups: sudo:|~ file: /etc/sub[ug]id:"
)


@pytest.mark.parametrize("name", ["fleet-a", "fleet-b"])
def test_each_machine_is_as_it_was(name: str) -> None:
    found = Scenario(os.environ).compare(name).splitlines()
    assert [line for line in found if not THEIRS.match(line)] == []


@pytest.mark.parametrize("name", ["fleet-a", "fleet-b"])
def test_operators_can_still_log_in(name: str) -> None:
    host = testinfra.get_host(f"docker://{name}")
    for operator in OPERATORS:
        assert host.user(operator).exists
        assert host.file(f"/home/{operator}/.ssh/authorized_keys").exists
