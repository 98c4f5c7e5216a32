"""From the plan and what runs to findings: each is shown to fire, and to be silent when all is fine."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from roost.fleet.findings import FleetSeen, ServerSeen, fleet_findings, fleet_not_checked, loading_allowance_s
from roost.fleet.plan import Refused

MAIN = ServerSeen("main", "large:Q4_K_M", "large", 8192, 8192, "ready", file_bytes=5_000_000_000)
ROUTER = ServerSeen("router", "small", "small:Q8_0", 0, 4096, "cold")
GOOD = FleetSeen((MAIN, ROUTER), ())


def server(changes: dict[str, Any]) -> dict[str, Any]:
    return {"servers": (dataclasses.replace(MAIN, **changes), ROUTER)}


@pytest.mark.parametrize(
    ("change", "expected", "fix"),
    [
        ({}, [], ""),
        (server({"state": "down", "reason": "nothing answers there"}), ["error server:main"], "roost logs main"),
        (
            server({"state": "down", "stuck": True, "reason": "it did not produce a token"}),
            ["error server:main"],
            "smaller context",
        ),
        (server({"state": "loading", "loading_s": None}), [], ""),
        (server({"state": "loading", "loading_s": 219.0}), [], ""),
        (server({"state": "loading", "loading_s": 221.0}), ["warning server:main"], "dmesg"),
        (server({"state": "ready", "loading_s": 1e6}), [], ""),
        (server({"context": 4096}), ["error context:main"], "bootstrap.sh"),
        (server({"context": 16384}), ["warning context:main"], "bootstrap.sh"),
        (server({"context": None}), [], ""),
        (server({"context": 4096, "planned_context": 0}), [], ""),
        (server({"context": 4096, "state": "loading"}), [], ""),
        (server({"job_model": "another"}), ["warning plan:main"], "bootstrap.sh"),
        (server({"job_model": "large:Q8_0"}), ["warning plan:main"], "bootstrap.sh"),
        (server({"job_model": ""}), [], ""),
        (
            {"refused": (Refused("vision", "big", "it needs 30 GiB", "Take a smaller one."),)},
            ["error refused:vision"],
            "Take a smaller one.",
        ),
        ({"servers": (MAIN,)}, ["info fallback"], "roost setup"),
        ({"servers": ()}, [], ""),
    ],
)
def test_each_finding(change: dict[str, Any], expected: list[str], fix: str) -> None:
    findings = fleet_findings(dataclasses.replace(GOOD, **change))
    assert [f"{f.severity} {f.id}" for f in findings] == expected
    assert all(f.what and f.why and f.fix and fix in f.fix for f in findings)


def test_a_larger_model_may_load_longer() -> None:
    assert loading_allowance_s(0) == 120
    assert loading_allowance_s(5_000_000_000) == 220


@pytest.mark.parametrize(
    ("change", "whats"),
    [
        ({}, []),
        ({"refused": None}, ["whether all slots would be placed today"]),
        (server({"state": "unknown"}), ["the model servers of main"]),
        (server({"state": ""}), ["the model servers of main"]),
        (server({"context": None}), ["the context of main"]),
        (server({"job_model": ""}), ["whether the jobs of main are as planned"]),
    ],
)
def test_what_was_not_looked_at_is_listed(change: dict[str, Any], whats: list[str]) -> None:
    items = fleet_not_checked(dataclasses.replace(GOOD, **change))
    assert [item.what for item in items] == whats
