"""Virtual environments that are made once for their lock file: LiteLLM's proxy, and the agent's image."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.support.engine import cache_dir

from bench.results import ROOT

AGENT = "agent"  # what the image has, and not what developers have beside it
LITELLM_PROXY = "litellm-proxy"


def environment(name: str) -> Path:
    """Return the folder of the virtual environment of `requirements/NAME.txt`; makes it if it is not there."""
    lock = ROOT / "requirements" / f"{name}.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256(lock.read_bytes() + version.encode()).hexdigest()[:16]
    folder = cache_dir() / "venvs" / f"{name}-{key}"
    if not (folder / "complete").exists():
        uv = Path(sys.executable).with_name("uv")
        for words in (
            ["venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            ["pip", "install", "--quiet", "--python", str(folder), "--require-hashes", "-r", str(lock)],
        ):
            subprocess.run([str(uv), *words], check=True)
        (folder / "complete").touch()
    return folder
