"""Action plugin: Roost's program on a machine of the fleet, by its own bootstrap.sh; there a shell is enough."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from roost.ops.errors import RoostError, user_message
from roost.ops.release import pack, product_files, release_id

# Prints the Python of a release that is whole and current; else nothing.
LOOK = """
release={install}/releases/{id}
[ -x "$release/bin/roost" ] || exit 0
python=$(sed -n 's/.* exec \\(.*\\/bin\\/python\\) .*/\\1/p' "$release/bin/roost")
[ -e "${{python%/bin/python}}/.complete" ] || exit 0
[ "$(readlink {install}/current)" = "releases/{id}" ] || exit 0
printf '%s\\n' "$python"
"""
INSTALL = """
set -eu
folder=$(mktemp -d "${{TMPDIR:-/var/tmp}}/roost-program.XXXXXX")
trap 'rm -rf "$folder"' EXIT
tar -C "$folder" --no-same-owner -xzf {tar}
{environment} sh "$folder/bootstrap.sh" --program --yes
"""


class ActionModule(ActionBase):
    """Compares the release of the playbook with the one on the machine, and brings it there."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `release` and `python` as they are on the machine; both empty in a check where they are not yet."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._task.args
        source, install = Path(args["source"]), str(args["install_dir"])
        local = self._connection.transport == "local"
        if local and (self._play_context.check_mode or source.resolve().parent == Path(install) / "releases"):
            return {**result, "changed": False, "release": "", "python": "", "installed": True}
        try:
            names = product_files(source)
            known = release_id(source, names)
        except (RoostError, OSError) as error:
            return {**result, "failed": True, "msg": user_message(error)}
        found = self._shell(LOOK.format(install=shlex.quote(install), id=known))
        if found["rc"] != 0:
            return {**result, "failed": True, "msg": f"The machine cannot be looked at: {said(found)}"}
        release, python = f"{install}/releases/{known}", found["stdout"].strip()
        if python:
            return {**result, "changed": False, "release": release, "python": python, "installed": True}
        after = f"release {known}\n"
        if self._play_context.check_mode:
            return {**result, "changed": True, "release": "", "python": "", "installed": False, "diff": diff(after)}
        done = self._install(source, names)
        last = (done["stdout"].strip().splitlines() or [""])[-1].split(" ")
        if done["rc"] != 0 or len(last) != 2:
            return {**result, "failed": True, "msg": f"The program could not be installed: {said(done)}"}
        release, python = last
        return {
            **result, "changed": True, "release": release, "python": python, "installed": True, "diff": diff(after),
        }  # fmt: skip

    def _install(self, source: Path, names: list[str]) -> dict[str, Any]:
        folder = self._make_tmp_path()
        try:
            with tempfile.TemporaryDirectory() as here:
                packed = Path(here) / "release.tar.gz"
                pack(source, names, packed)
                self._connection.put_file(str(packed), f"{folder}/release.tar.gz")
            environment = {str(k): str(v) for k, v in (self._task.args.get("environment") or {}).items()}
            words = " ".join(f"{name}={shlex.quote(text)}" for name, text in sorted(environment.items()))
            tar = shlex.quote(f"{folder}/release.tar.gz")
            return self._shell(INSTALL.format(tar=tar, environment=words and f"env {words}"))
        finally:
            self._remove_tmp_path(folder)

    def _shell(self, script: str) -> dict[str, Any]:
        return self._low_level_execute_command(f"sh -c {shlex.quote(script)}")


def said(done: dict[str, Any]) -> str:
    """Return the end of what a command printed, with its fix where it names one."""
    lines = [line for line in f"{done['stdout']}\n{done['stderr']}".splitlines() if line.strip()]
    return "\n".join(lines[-6:]).replace("\nFix: ", " Fix: ") or f"exit code {done['rc']}"


def diff(after: str) -> dict[str, str]:
    """Return what was not there and is now."""
    return {"before": "", "after": after}
