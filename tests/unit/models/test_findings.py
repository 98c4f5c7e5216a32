"""From what was seen of models to findings: each is shown to fire, and to be silent when all is fine."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from roost.models.findings import MIB, MemoryFigure, ModelsSeen, PlannedFile, model_findings, models_not_checked

HERE = PlannedFile("main", "small:Q4_K_M", "/m/a/small.gguf", "verified", 100 * MIB)
OF_HUB = dataclasses.replace(HERE, lock="fits", only_hub=True)
FIGURE = MemoryFigure("main", "CPU", 1000 * MIB, 900 * MIB, 4000 * MIB)
BROKEN = "error model:small:Q4_K_M"
GOOD = ModelsSeen((HERE,), (FIGURE,), free_bytes=10_000 * MIB)


def file(changes: dict[str, Any]) -> tuple[PlannedFile, ...]:
    return (dataclasses.replace(OF_HUB, **changes),)


def figure(changes: dict[str, Any]) -> tuple[MemoryFigure, ...]:
    return (dataclasses.replace(FIGURE, **changes),)


@pytest.mark.parametrize(
    ("change", "expected", "fix"),
    [
        ({}, [], ""),
        ({"files": (OF_HUB, OF_HUB), "hub_problem": "refused"}, [], ""),
        ({"files": (dataclasses.replace(HERE, state="missing"),)}, [BROKEN], "bootstrap.sh"),
        ({"files": file({"state": "wrong size"})}, [BROKEN], "roost models verify"),
        ({"files": file({"state": "wrong content"})}, [BROKEN], "roost models verify"),
        (
            {"files": file({"state": "", "lock": "missing"}), "hub_problem": ""},
            [BROKEN],
            "pull small",
        ),
        ({"files": file({"lock": "other"})}, ["warning lock:small:Q4_K_M"], "models.lock.yaml"),
        ({"files": file({"lock": "missing"})}, [], ""),
        (
            {"files": file({"state": "missing"}), "hub_problem": "no route"},
            [BROKEN, "error hub"],
            "",
        ),
        ({"files": file({"state": "missing"}), "hub_problem": ""}, [BROKEN], ""),
        (
            {"files": (dataclasses.replace(HERE, state="missing"),), "hub_problem": "no route"},
            [BROKEN],
            "",
        ),
        (
            {"files": (dataclasses.replace(HERE, state="missing"),), "free_bytes": 120 * MIB},
            [BROKEN, "error models-room"],
            "",
        ),
        ({"free_bytes": 0}, [], ""),
        ({"memory": figure({"there": 999 * MIB})}, ["error memory:main:CPU"], "roost setup"),
        ({"memory": figure({"there": None})}, [], ""),
        (
            {"memory": figure({"device": "GPU0", "measured": 1100 * MIB})},
            ["warning measured:main:GPU0"],
            "bootstrap.sh",
        ),
        ({"problems": {"router": ("The catalogue has no model 'x'.", "Use y.")}}, ["error model-of:router"], "Use y."),
    ],
)
def test_each_finding(change: dict[str, Any], expected: list[str], fix: str) -> None:
    findings = model_findings(dataclasses.replace(GOOD, **change))
    assert [f"{f.severity} {f.id}" for f in findings] == expected
    assert all(f.what and f.why and f.fix and fix in f.fix for f in findings)


def test_figures_are_said() -> None:
    (over,) = model_findings(ModelsSeen(memory=figure({"measured": 1100 * MIB})))
    assert "1100 MiB of the machine's memory, 10.0 % more than the 1000 MiB" in over.what
    (room,) = [
        f for f in model_findings(ModelsSeen((dataclasses.replace(HERE, state="missing"),), free_bytes=100 * MIB))
        if f.id == "models-room"
    ]  # fmt: skip
    assert "need 164 MiB" in room.what
    assert "Free 64 MiB" in room.fix


@pytest.mark.parametrize(
    ("change", "whats"),
    [
        ({"hub_problem": ""}, []),
        ({}, ["whether a model hub answers"]),
        ({"hub_problem": "", "free_bytes": None}, []),
        (
            {"hub_problem": "", "free_bytes": None, "files": (dataclasses.replace(HERE, state="missing"),)},
            ["room for models that are missing"],
        ),
        (
            {"hub_problem": "", "memory": figure({"measured": None, "there": None})},
            ["memory in use against the estimate of main"],
        ),
    ],
)
def test_what_was_not_looked_at_is_listed(change: dict[str, Any], whats: list[str]) -> None:
    items = models_not_checked(dataclasses.replace(GOOD, **change))
    assert [item.what for item in items] == whats
