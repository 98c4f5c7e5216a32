"""The page: its policy, and that it asks nobody else for anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from roost.web import pages

STATIC = Path(pages.__file__).parent / "static"


@pytest.mark.parametrize(("path", "kind"), [(path, kind) for path, (_, kind) in pages.FILES.items()])
def test_each_file_is_served_with_the_policy(path: str, kind: str) -> None:
    answer = TestClient(Starlette(routes=pages.routes())).get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_file_in_the_package_is_served() -> None:
    assert {path.name for path in STATIC.iterdir()} == {name for name, _ in pages.FILES.values()}


def test_the_page_loads_only_from_its_own_service() -> None:
    html = (STATIC / "index.html").read_text()
    links = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert set(links) <= set(pages.FILES)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html)
    script = (STATIC / "app.js").read_text()
    assert "http://" not in script
    assert "https://" not in script
    assert "innerHTML" not in script
    for path in re.findall(r'(?:call|fetch)\("([^"]+)"', script):
        assert path in {"/v1/models", "/v1/chat/completions", "/readyz"}


def test_ids_that_the_script_uses_exist() -> None:
    html = (STATIC / "index.html").read_text()
    for name in set(re.findall(r'\$\("([\w-]+)"\)', (STATIC / "app.js").read_text())):
        assert f'id="{name}"' in html, name
