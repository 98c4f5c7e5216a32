"""A disk as a virtual machine, booted once for all tests of a file, which says by `make_image` what is on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts.host import logs_folder
from tests.hosts.measured import MEASURED, Measure, cache, measure, pytest_terminal_summary, repository
from tests.qemu.machine import Image, Machine, choose_accelerator

__all__ = ["cache", "measure", "pytest_terminal_summary", "repository"]  # pytest finds them here


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what is measured."""
    config.stash[MEASURED] = {}


@pytest.fixture(scope="module")
def machine(
    make_image: Callable[..., Image],
    cache: Path,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    measure: Measure,
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
