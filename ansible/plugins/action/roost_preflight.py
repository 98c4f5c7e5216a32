"""Action plugin: preflight of a machine that may have nothing but a shell; the controller reads and decides."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from typing import Any

from ansible.plugins.action import ActionBase

from roost.hosts.preflight import check
from roost.hosts.preflight_wishes import wishes_from
from roost.hosts.probe import read, script
from roost.ops.errors import RoostError, user_message


class ActionModule(ActionBase):
    """The module on the controller itself, a script for a shell elsewhere: nothing is left there."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was found."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args: dict[str, Any] = dict(self._task.args)
        if self._connection.transport == "local":
            module = self._execute_module(module_name="roost_preflight", module_args=args, task_vars=task_vars)
            return {**result, **module}
        variables: dict[str, Any] = args["variables"]
        paths = [str(variables["roost_state_dir"]), str(variables["roost_cache_dir"])]
        text = script(
            paths, args["site_file"], ask_apt=not variables["roost_offline_dir"],
            extra_ca_bundle=str(args.get("extra_ca_bundle") or ""),
        )  # fmt: skip
        environment = self._compute_environment_string()
        begin = time.time()
        done = self._low_level_execute_command(f"{environment} sh -c {shlex.quote(text)}".strip())
        try:
            seen = read(str(done["stdout"]))
        except (RoostError, ValueError, LookupError) as error:
            reason = user_message(error) if isinstance(error, RoostError) else str(error)
            last = [line for line in str(done["stderr"]).splitlines() if line.strip()][-1:]
            said = " ".join([*last, reason])
            return {**result, "failed": True, "msg": f"The machine cannot be looked at: {said}"}
        wishes = wishes_from(variables, installed=seen.installed, here=seen.facts.default_address)
        quiet = seen.installed or wishes.offline
        # The script took a while; the machine's clock was read somewhere within it.
        now = min(max(seen.facts.clock, begin), time.time())
        findings = check(
            seen.facts, wishes, {} if quiet or not seen.apt else {"apt": seen.apt},
            unresolved=[] if quiet else seen.unresolved, clock_here=now,
        )  # fmt: skip
        return {**result, "changed": False, "findings": [asdict(finding) for finding in findings]}
