"""A staged root as a virtual machine, booted once for all tests of a file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.host import logs_folder
from tests.hosts.measured import MEASURED, Measure, cache, measure, pytest_terminal_summary, repository
from tests.qemu.image import make_image
from tests.qemu.machine import Machine, choose_accelerator

__all__ = ["cache", "measure", "pytest_terminal_summary", "repository"]  # pytest finds them here


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what is measured."""
    config.stash[MEASURED] = {}


@pytest.fixture(scope="module")
def machine(
    cache: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory, measure: Measure
) -> Iterator[Machine]:
    """The machine, switched on; its consoles are kept with the logs."""
    folder = tmp_path_factory.mktemp("machine")
    image = make_image(folder, cache=cache, repository=repository)
    accelerator = choose_accelerator(image.kernel, folder)
    machine = Machine(image, accelerator, folder)
    try:
        measure(f"qemu: first boot, {accelerator.name}", machine.power_on())
        yield machine
    finally:
        machine.cut_power()
        logs = logs_folder(cache)
        logs.mkdir(parents=True, exist_ok=True)
        for console in folder.glob("console-*.log"):
            shutil.copy(console, logs / f"qemu-{console.name}")
        shutil.rmtree(folder)
