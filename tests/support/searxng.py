"""SearXNG itself, from a package that bundles its sources; it has no page, which JSON does not need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from bench.environments import environment
from bench.results import ROOT

BUNDLE = "src/searxng_core/searx"
STAND_IN = ("templates/simple", "static/themes/simple")  # folders that it wants to see
VERSION = "of-the-tests"
VERSION_NAMES = ("VERSION_STRING", "VERSION_TAG", "DOCKER_TAG", "GIT_URL", "GIT_BRANCH")
PLACE = "/usr/local/searxng"  # where the official image has it
SERVER = ".venv/bin/granian"
# What the official image sets for its server (container/dist.dockerfile of SearXNG), and where this one's packages are.
IMAGE_ENVIRONMENT = {
    "GRANIAN_INTERFACE": "wsgi",
    "GRANIAN_WEBSOCKETS": "false",
    "PYTHONPATH": f"{PLACE}:{PLACE}/packages",
}


def engine_of_pages(address: str) -> dict[str, object]:
    """Return an entry of its list `engines` that asks a web server of a test: `{"items": [{t, u, c}]}`."""
    return {
        "name": "local", "engine": "json_engine", "shortcut": "lo", "categories": "general", "enable_http": True,
        "search_url": f"{address}/?q={{query}}", "results_query": "items", "title_query": "t", "url_query": "u",
        "content_query": "c",
    }  # fmt: skip


def searxng_command(folder: Path) -> list[str]:
    """Return what starts it, from a copy in `folder` without the packager's own proxy."""
    made = environment("searxng")
    (packages,) = made.glob("lib/python*/site-packages")
    sources = copied(packages, folder / "searxng")
    return ["/usr/bin/env", f"PYTHONPATH={sources}", str(made / "bin" / "python"), "-m", "searx.webapp"]


def searxng_root(folder: Path, python: str) -> Path:
    """Return a folder that makes an image with Python (`python`: such as 3.11) one of SearXNG, as the official is.

    It is put over that image's root, with `IMAGE_ENVIRONMENT`.
    """
    place = folder / "root" / PLACE.removeprefix("/")
    words = ["pip", "install", "--quiet", "--python-version", python, "--target", str(place / "packages")]
    lock = ROOT / "requirements" / "searxng.txt"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([str(uv), *words, "--only-binary", ":all:", "--require-hashes", "-r", str(lock)], check=True)
    copied(place / "packages", place)
    server = place / SERVER
    server.parent.mkdir(parents=True)
    server.write_text('#!/bin/sh\nexec python3 -m granian "$@"\n')
    server.chmod(0o755)
    return folder / "root"


def copied(packages: Path, folder: Path) -> Path:
    """Copy the sources from the package that bundles them, without its proxy; return what they are imported from."""
    copy = folder / "searx"
    shutil.copytree(packages / BUNDLE, copy)
    for name in STAND_IN:
        (copy / name).mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load((copy / "settings.yml").read_text())
    settings["outgoing"].pop("proxies", None)
    # As releases have it; without it git is asked.
    (copy / "version_frozen.py").write_text("".join(f'{name} = "{VERSION}"\n' for name in VERSION_NAMES))
    (copy / "settings.yml").write_text(yaml.safe_dump(settings, allow_unicode=True))
    return folder
