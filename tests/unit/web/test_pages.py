"""The page: its policy, and that it asks nobody else for anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from roost.web import pages
from roost.web.pages import FILES, page

STATIC = Path(pages.__file__).parent / "static"
SCRIPTS = sorted(STATIC.rglob("*.js"))


@pytest.mark.parametrize("path", sorted(FILES))
def test_each_file_is_served_with_the_policy(path: str) -> None:
    answer = page(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(FILES[path].kind)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_the_browser_has_is_not_sent_again() -> None:
    first = page("/")
    again = page("/", first.headers["etag"])
    assert (again.status_code, again.body) == (304, b"")
    assert page("/", '"another"').status_code == 200


def test_every_file_in_the_package_is_served() -> None:
    wanted = {"/web/" + str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.is_file()}
    assert wanted - {"/web/index.html"} | {"/"} == set(FILES)


def test_the_page_loads_only_from_its_own_service() -> None:
    html = (STATIC / "index.html").read_text()
    links = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert set(links) <= set(FILES)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_makes_no_markup_of_text_and_keeps_no_key(script: Path) -> None:
    text = script.read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert word not in text, word
    assert "Authorization" not in text
    for name in re.findall(r'^import .* from "([^"]+)"', text, re.MULTILINE):
        assert (script.parent / name).is_file(), name
