"""Machines come into the kept inventory and leave it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from roost.fleet import inventory
from roost.ops.errors import RoostError

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "ansible/inventory").glob("*.yaml"))


def test_a_machine_alone_becomes_three_and_two_again(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    document = inventory.alone("one", "192.0.2.11")
    for name in ("two", "three"):
        document = inventory.with_machine(document, name, {"ansible_host": f"{name}.example"})
    assert inventory.servers(document) == ["one"]
    document = inventory.with_servers(document, ["one", "two", "three"])
    inventory.write(path, document)
    assert path.stat().st_mode & 0o777 == 0o600
    again = inventory.read(path)
    assert inventory.servers(again) == ["one", "two", "three"]
    assert inventory.checked(again) == again
    smaller = inventory.without_machine(again, "two")
    assert inventory.servers(smaller) == ["one", "three"]
    with pytest.raises(RoostError, match="1, 3 or 5"):
        inventory.checked(smaller)
    assert inventory.servers(inventory.with_servers(smaller, ["three"])) == ["three"]
    with pytest.raises(RoostError, match="names two, not of the group fleet"):
        inventory.with_servers(smaller, ["one", "two", "three"])
    with pytest.raises(RoostError, match="has 2 machines"):
        inventory.with_servers(smaller, ["one", "three"])


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    document = inventory.alone("one", "192.0.2.11")
    with pytest.raises(RoostError, match="in the inventory already"):
        inventory.with_machine(document, "one", {})
    with pytest.raises(RoostError, match="from which the fleet is set up"):
        inventory.without_machine(document, "one")
    with pytest.raises(RoostError, match="not in the inventory"):
        inventory.without_machine(document, "two")
    with pytest.raises(RoostError, match="No fleet is set up"):
        inventory.read(tmp_path / "none.yaml")
    (tmp_path / "other.yaml").write_text("all: {hosts: {a: null}}")
    with pytest.raises(RoostError, match="cannot change"):
        inventory.read(tmp_path / "other.yaml")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_names_a_good_number_of_servers(example: Path) -> None:
    document = inventory.read(example)
    assert inventory.checked(document) == document
    assert set(inventory.servers(document)) <= set(document["fleet"]["hosts"])
    assert yaml.safe_load(example.read_text()) == document
