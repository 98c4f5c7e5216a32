"""Run Ansible modules on this machine: ours alone, as Ansible starts them on a host, or any through Ansible."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


MODULES = REPOSITORY / "ansible/plugins/modules"


def load_module(name: str) -> ModuleType:
    """Return the code of one of ours, to be called here."""
    spec = importlib.util.spec_from_file_location(name, MODULES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_module(name: str, arguments: Mapping[str, object], *, check: bool = False) -> dict[str, Any]:
    """Return a module's result, with `failed` set: one of ours or of Ansible's own (`ansible.modules.setup`).

    A process of its own, as on a host, without the controller before it.
    """
    given = {"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check}}
    done = subprocess.run(
        [sys.executable, *(["-m", name] if name.startswith("ansible.") else [str(MODULES / f"{name}.py")])],
        env=_environment(),
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().startswith("{"), done.stdout + done.stderr
    return _result(done.stdout, failed=done.returncode != 0)


def run_ansible(name: str, arguments: Mapping[str, object]) -> dict[str, Any]:
    """Return any module's result through the command `ansible`, with `failed` set."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible")), "localhost", "--connection", "local", "--one-line",
            "--module-path", str(MODULES), "--module-name", name,
            "--args", json.dumps(arguments), "--extra-vars", f"ansible_python_interpreter={sys.executable}",
        ],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    line = next((text for text in done.stdout.splitlines() if " => " in text), "")
    assert line, done.stdout + done.stderr
    return _result(line.split(" => ", 1)[1], failed=done.returncode != 0)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "app"), "ANSIBLE_NOCOLOR": "1"}


def _result(text: str, *, failed: bool) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(text)
    return {**result, "failed": failed}
