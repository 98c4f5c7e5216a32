"""SearXNG itself, from a package that bundles its sources; it has no page, which JSON does not need."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from bench.environments import environment

BUNDLE = "lib/python*/site-packages/src/searxng_core/searx"
STAND_IN = ("templates/simple", "static/themes/simple")  # folders that it wants to see


def searxng_command(folder: Path) -> list[str]:
    """Return what starts it, from a copy in `folder` without the packager's own proxy."""
    made = environment("searxng")
    (bundled,) = made.glob(BUNDLE)
    copy = folder / "searxng" / "searx"
    shutil.copytree(bundled, copy)
    for name in STAND_IN:
        (copy / name).mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load((copy / "settings.yml").read_text())
    settings["outgoing"].pop("proxies", None)
    (copy / "settings.yml").write_text(yaml.safe_dump(settings, allow_unicode=True))
    return ["/usr/bin/env", f"PYTHONPATH={copy.parent}", str(made / "bin" / "python"), "-m", "searx.webapp"]
