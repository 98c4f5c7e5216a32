"""Action plugin: certificates and secrets for a node, by the authority on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from roost.ops.authority import Authority
from roost.ops.errors import RoostError, user_message
from roost.ops.pki import LeafSpec

MODULE = "roost_pki"


class ActionModule(ActionBase):
    """Where the authority's folder is the node's own, the module does it all; else keys are made on the node."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args: dict[str, Any] = dict(self._task.args)
        here = (args["tls_dir"], args["secrets_dir"])
        there = (args.get("authority_tls_dir") or here[0], args.get("authority_secrets_dir") or here[1])
        if self._connection.transport == "local" and here == there:
            return {**result, **self._call(args, task_vars)}
        authority = Authority(Path(there[0]), Path(there[1]))
        dry_run = bool(self._play_context.check_mode)
        try:
            made = authority.ensure(dry_run=dry_run)
            ca = authority.certificate()
            secrets = {name: authority.secret(name) for name in args.get("names", [])}
            asked = self._call({**args, "state": "ask", "ca": ca, "secrets": secrets}, task_vars)
            if dry_run or asked.get("failed") or not asked["made"]:
                return {**result, **asked, "changed": asked.get("changed", False) or bool(made)}
            leaves = [LeafSpec(name, tuple(map(str, hosts))) for name, hosts in args["leaves"].items()]
            signed = authority.sign(leaves, asked["requests"])
        except (RoostError, OSError) as error:
            return {**result, "failed": True, "msg": user_message(error)}
        final = {**args, "state": "install", "ca": ca, "signed": signed, "secrets": secrets}
        return {**result, **self._call(final, task_vars), "made": asked["made"], "changed": True}

    def _call(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        done: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)
        return done
