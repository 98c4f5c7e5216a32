"""Entry of the `roost` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] in (["serve"], ["serve", "gateway"], ["serve", "hub"]):
        # the agent's image and memory have no room for the rest of the command line
        from roost.cli.serve import main as serve

        serve(sys.argv[2:])
        return
    from roost.cli.verbs import run_command_line

    sys.exit(run_command_line())
