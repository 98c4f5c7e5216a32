"""A root that Roost is staged into on this machine, as its only installation would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.hosts import roots
from tests.support import engine


def staged_root(plain: roots.Root, folder: Path, *, cache: Path, repository: Path) -> Path:
    """Unpack `plain` below `folder`, stage Roost into it, and return the root.

    Raises:
        AssertionError: staging changed too little, or something when it was run again.
    """
    root = folder / "root"
    root.mkdir()
    subprocess.run(["tar", "-C", str(root), "-xf", str(roots.ensure_tar(plain, cache))], check=True)
    site = folder / "site.json"
    engine.model_file()
    site.write_text(json.dumps(site_document(repository, folder)))
    stage = [sys.executable, "-m", "roost", "stage", str(root), "--context-size", "2048", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(repository / "app"), "ROOST_SITE": str(site)}
    first = json.loads(subprocess.run(stage, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    assert "copy /opt/roost/engine" in first["changes"]
    again = json.loads(subprocess.run(stage, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    assert again["changes"] == []
    return root


def site_document(repository: Path, folder: Path) -> dict[str, object]:
    """What an installation on this machine would say, as far as staging reads it."""
    nothing = str(folder / "none")
    unused = ("nomad_ca", "nomad_cert", "nomad_key", "nomad_token_file", "state_dir", "log_dir", "install_dir")
    return {
        "release": "test", "runtime": "local", "api": "", "web": "", "nomad": "", "agent_job": "",
        "slots": [{"slot": "main", "model": engine.MODEL, "job": "roost-model-main"}],
        "catalogue": str(repository / "group_vars/models.yaml"),
        "models_dir": str(engine.cache_dir() / "test-models"),
        "cache_dir": str(engine.cache_dir()),
        "artifacts_dir": str(engine.cache_dir() / "test-artifacts"),
        "api_key_file": str(folder / "secrets" / "api-key"),
        **dict.fromkeys(unused, nothing),
    }  # fmt: skip
