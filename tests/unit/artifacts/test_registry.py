"""Images go to the registry once and come from it by digest; no name of the registry is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.fleet.artifacts.docker import Docker
from roost.fleet.artifacts.registry import HttpsRegistry, pull, push
from roost.ops.errors import RoostError

ADDRESS = "192.0.2.11:8466"
AGENT, ENGINE = "roost/agent:aaa", "roost/llama-server:bbb"
DIGESTS = {AGENT: "sha256:" + "a" * 64, ENGINE: "sha256:" + "b" * 64}


class FakeRegistry:
    """Keeps what is pushed, unless it is full."""

    address = ADDRESS

    def __init__(self, *there: str, full: bool = False) -> None:
        self.there = set(there)
        self.full = full

    def digest(self, reference: str) -> str:
        return DIGESTS[reference] if reference in self.there else ""


class FakeDocker(Docker):
    """Notes what it is asked; a push arrives at the registry."""

    def __init__(self, registry: FakeRegistry | None = None) -> None:
        super().__init__(environment={})
        object.__setattr__(self, "asked", [])
        object.__setattr__(self, "registry", registry)
        self.asked: list[str]
        self.registry: FakeRegistry | None

    def call(self, *words: str | Path, timeout_s: float | None = None) -> str:
        assert timeout_s is None
        line = " ".join(map(str, words))
        self.asked.append(line)
        if line.startswith("image push") and self.registry is not None:
            if self.registry.full:
                raise RoostError("no space left on device")
            self.registry.there.add(line.rpartition(f"{ADDRESS}/")[2])
        return ""


def test_only_what_it_lacks_is_pushed() -> None:
    registry = FakeRegistry(AGENT)
    docker = FakeDocker(registry)
    assert push(docker, registry, [AGENT, ENGINE]) == (DIGESTS, [ENGINE])
    assert docker.asked == [
        f"image tag {ENGINE} {ADDRESS}/{ENGINE}",
        f"image push --quiet {ADDRESS}/{ENGINE}",
        f"image rm {ADDRESS}/{ENGINE}",
    ]
    assert push(docker, registry, [AGENT, ENGINE]) == (DIGESTS, [])


def test_a_push_that_fails_leaves_no_name_behind() -> None:
    registry = FakeRegistry(full=True)
    docker = FakeDocker(registry)
    with pytest.raises(RoostError, match="no space left"):
        push(docker, registry, [AGENT])
    assert docker.asked[-1] == f"image rm {ADDRESS}/{AGENT}"


def test_a_registry_that_loses_what_it_took_is_named() -> None:
    with pytest.raises(RoostError, match="did not keep"):
        push(FakeDocker(), FakeRegistry(), [AGENT])


def test_what_is_known_is_pulled_by_its_digest_and_named() -> None:
    docker = FakeDocker()
    assert pull(docker, ADDRESS, {AGENT: DIGESTS[AGENT]}, [AGENT, ENGINE]) == [AGENT]
    named = f"{ADDRESS}/roost/agent@{DIGESTS[AGENT]}"
    assert docker.asked == [f"image pull --quiet {named}", f"image tag {named} {AGENT}", f"image rm {named}"]


@pytest.mark.parametrize("digest", ["latest", "sha256:short", "sha256:" + "g" * 64, f"{DIGESTS[AGENT]} --all-tags"])
def test_a_digest_that_is_none_is_refused(digest: str) -> None:
    docker = FakeDocker()
    with pytest.raises(RoostError, match="is no digest"):
        pull(docker, ADDRESS, {AGENT: digest}, [AGENT])
    assert docker.asked == []


def test_a_registry_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = HttpsRegistry("127.0.0.1:1", tmp_path / "ca", tmp_path / "cert", tmp_path / "key")
    with pytest.raises(RoostError, match=r"127\.0\.0\.1:1 does not answer"):
        missing.digest(AGENT)
