"""SearXNG's image: fetched unless it is there, made ours, and what is said where it cannot be had."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from roost.fleet.artifacts.docker import Docker, Image
from roost.fleet.artifacts.images import ImageMaker
from roost.fleet.artifacts.plan import SEARCH, Choices, Plan, make_plan
from roost.ops.errors import RoostError
from tests.unit.artifacts.making import REPOSITORY

IMAGE = "hub.example/searxng/searxng@sha256:" + "a" * 64


@dataclass(frozen=True)
class Scripted(Docker):
    """A docker that has some images and reaches some; notes what it is asked."""

    has_images: set[str] = field(default_factory=set)
    reachable: bool = True
    calls: list[str] = field(default_factory=list)

    def call(self, *words: str | Path, timeout_s: float | None = None) -> str:
        _ = timeout_s
        text = " ".join(map(str, words))
        self.calls.append(text)
        if text.startswith("image inspect") and words[-1] not in self.has_images:
            raise RoostError(f"Error: No such image: {words[-1]}")
        if text.startswith("image pull") and not self.reachable:
            raise RoostError("dial tcp: lookup hub.example: no such host")
        return ""

    def images(self) -> list[Image]:
        """Return ours: none yet."""
        return []


def maker(tmp_path: Path, docker: Docker) -> tuple[ImageMaker, Plan]:
    choices = Choices(
        runtime="docker", release_dir=REPOSITORY, cache_dir=tmp_path, artifacts_dir=tmp_path, web_search_image=IMAGE
    )
    plan = make_plan(choices, None, None)
    only = Plan("docker", {SEARCH: plan.tags[SEARCH]}, None, None, None)

    def never(*_given: object) -> NoReturn:
        raise AssertionError

    return ImageMaker(choices, only, docker, never, never, never, never, lambda _text: None), plan


def test_it_is_wanted_with_containers_only_and_its_tag_follows_from_the_digest(tmp_path: Path) -> None:
    _, plan = maker(tmp_path, Scripted())
    choices = Choices(
        runtime="local", release_dir=REPOSITORY, cache_dir=tmp_path, artifacts_dir=tmp_path, web_search_image=IMAGE
    )
    other = choices.model_copy(update={"runtime": "docker", "web_search_image": f"{IMAGE[:-1]}b"})
    assert SEARCH not in make_plan(choices, None, None).tags
    assert make_plan(other, None, None).tags[SEARCH] != plan.tags[SEARCH]


def test_it_is_fetched_made_ours_and_the_others_name_goes(tmp_path: Path) -> None:
    docker = Scripted()
    made, plan = maker(tmp_path, docker)
    made.ensure()
    assert made.made == [plan.reference(SEARCH)]
    words = [call.split()[:2] for call in docker.calls]
    assert words.index(["image", "pull"]) < next(i for i, call in enumerate(docker.calls) if call.startswith("build"))
    assert f"image rm {IMAGE}" in docker.calls


def test_one_that_was_handed_over_is_taken_and_stays(tmp_path: Path) -> None:
    docker = Scripted(has_images={IMAGE}, reachable=False)
    made, _ = maker(tmp_path, docker)
    made.ensure()
    assert made.made
    assert not [call for call in docker.calls if call.startswith(("image pull", "image rm"))]


def test_where_it_cannot_be_had_the_ways_to_hand_it_over_are_named(tmp_path: Path) -> None:
    made, _ = maker(tmp_path, Scripted(reachable=False))
    with pytest.raises(RoostError, match="SearXNG's image cannot be had: dial tcp") as told:
        made.ensure()
    for way in ("--image", "docker image load", "roost bundle"):
        assert way in (told.value.fix or "")
