"""LiteLLM as a client, from a virtual environment of its own that is made once for its lock file."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine import REPOSITORY, cache_dir
from tests.support.gateway import API_KEY, Service

LOCK = REPOSITORY / "requirements" / "litellm.txt"
SCRIPT = REPOSITORY / "tests" / "support" / "litellm_client.py"
INSTALL_TIMEOUT_S = 600


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python that has LiteLLM."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256(LOCK.read_bytes() + version.encode()).hexdigest()[:16]
    folder = cache_dir() / "venvs" / f"litellm-{key}"
    done = folder / "complete"
    if not done.exists():
        uv = Path(sys.executable).with_name("uv")
        for arguments in (
            ["venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            ["pip", "install", "--quiet", "--python", str(folder), "--require-hashes", "-r", str(LOCK)],
        ):
            subprocess.run([str(uv), *arguments], check=True, timeout=INSTALL_TIMEOUT_S)
        done.touch()
    return folder / "bin" / "python"


@pytest.mark.timeout(900)
def test_litellm_speaks_with_the_fleet(roost: Service, python: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(python), str(SCRIPT), roost.url, API_KEY],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["plain"] == found["streamed"]
    assert found["plain"]
    assert found["tokens"] == 8
    assert found["anthropic"]
    assert found["text"]
    assert found["too long"] == "ContextWindowExceededError"
    assert found["unknown"] == "NotFoundError"
    assert found["stranger"] == "AuthenticationError"
