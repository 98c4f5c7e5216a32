"""Run one of our Ansible modules through Ansible on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


def run_module(name: str, arguments: Mapping[str, object], *options: str) -> dict[str, Any]:
    """Return the module's result, with `failed` set; `options` are those of the command `ansible`."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible")), "localhost", "--connection", "local", "--one-line",
            "--module-path", str(REPOSITORY / "ansible/plugins/modules"), "--module-name", name,
            "--args", json.dumps(arguments), "--extra-vars", f"ansible_python_interpreter={sys.executable}", *options,
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "app"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    line = next((text for text in done.stdout.splitlines() if " => " in text), "")
    assert line, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(line.split(" => ", 1)[1])
    return {**result, "failed": done.returncode != 0}
