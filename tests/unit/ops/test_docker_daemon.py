"""A Docker that does not answer: its own reason, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.ops.docker_daemon import fix_for, reason_in, wait_for_docker
from roost.ops.errors import RoostError

# Recorded: docker.io 20.10 on Debian 12 where /proc/sys is read-only.
LOG = """\
Nov 24 00:26:22 host dockerd[1463]: time="2026-11-24T00:26:22.489Z" level=info msg="stopping event stream"
Nov 24 00:26:22 host dockerd[1463]: failed to start daemon: Error initializing network controller: Enabling IP \
forwarding failed: open /proc/sys/net/ipv4/ip_forward: read-only file system
Nov 24 00:26:22 host systemd[1]: docker.service: Main process exited, code=exited, status=1/FAILURE
"""


def docker_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a `docker` of our own on the PATH."""
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_a_daemon_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_that(tmp_path, monkeypatch, "echo 20.10.24")
    assert wait_for_docker(["false"], 1) == "20.10.24"


def test_the_daemons_own_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_that(tmp_path, monkeypatch, "echo 'Cannot connect' >&2; exit 1")
    log = tmp_path / "log"
    log.write_text(LOG)
    with pytest.raises(RoostError, match="read-only file system") as caught:
        wait_for_docker(["cat", str(log)], 0)
    assert "sysctl -w net.ipv4.ip_forward=1" in caught.value.fix


def test_without_a_reason_the_clients_words_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_that(tmp_path, monkeypatch, "echo 'Cannot connect' >&2; exit 1")
    with pytest.raises(RoostError, match="Cannot connect") as caught:
        wait_for_docker(["no-such-program"], 0)
    assert "no-such-program" in caught.value.fix


def test_the_last_reason_counts() -> None:
    assert reason_in("failed to start daemon: first\nx failed to start daemon: second\n") == "second"
    assert reason_in("") == ""
    assert "Read its log with `tail x`" in fix_for("no space left", ["tail", "x"])
