"""All verbs of the command line. Each is imported when it is used, so that help and completion come at once."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command, get_group

from roost import __version__
from roost.ops.errors import NOT_ALLOWED, RoostError, user_message

FAILED, USAGE, INTERRUPTED = 1, 2, 130
NO_VERB = "NoArgsIsHelpError"  # of a group: typer has no public name for it
Handle = Any  # typer has no public names for its commands and the context of a group


@dataclass(frozen=True)
class Verb:
    """Where a verb is implemented: a function, or a `typer.Typer` with verbs of its own. `about` shows in the help."""

    module: str
    name: str
    about: str


VERBS = {
    "status": Verb("roost.cli.status", "status", "Show what runs here and whether it is healthy."),
    "chat": Verb("roost.cli.chat", "chat", "Talk to the agent, or have one answer of a model."),
    "agent": Verb("roost.cli.agent", "agent", "Talk to the agent, which uses tools."),
    "worker": Verb("roost.cli.worker", "app", "Run the agent's tools on this machine, in folders that you named."),
    "workspace": Verb("roost.cli.workspace", "app", "Name folders that the agent may work in."),
    "mcp": Verb("roost.cli.mcp", "app", "Use tools of MCP servers, and give Roost's tools to MCP clients."),
    "search": Verb("roost.cli.search", "app", "Search the web from conversations: start and stop the fleet's SearXNG."),
    "models": Verb("roost.cli.models", "app", "Show, fetch, verify and remove models."),
    "jobs": Verb("roost.cli.jobs", "jobs", "Show the jobs that Nomad runs."),
    "logs": Verb("roost.cli.logs", "logs", "Show what the agent, a model server, Nomad or the set-up logged."),
    "doctor": Verb("roost.cli.doctor", "doctor", "Find out what is wrong here, and how to put it right."),
    "setup": Verb("roost.cli.setup", "setup", "Choose models that run well here, fetch and start them."),
    "hosts": Verb("roost.cli.hosts", "hosts", "Show what this machine has, and which models it can serve."),
    "plan": Verb("roost.cli.plan", "plan", "Show which model runs where, why, and what would have to change."),
    "verify": Verb("roost.cli.verify", "verify", "Ask the model a question and check its answer."),
    "config": Verb("roost.cli.config", "app", "Show what is configured and where it is from; go back to defaults."),
    "fleet": Verb("roost.cli.fleet", "app", "Show, add and remove the machines of the fleet."),
    "images": Verb("roost.cli.images", "app", "Show, renew and tidy what the jobs run from."),
    "stage": Verb("roost.cli.stage", "stage", "Put Roost into the root folder of an image that is being built."),
    "bundle": Verb("roost.cli.bundle", "bundle", "Make a folder to install from where there is no network."),
    "keys": Verb("roost.cli.keys", "app", "Make, show, change and revoke keys of the API."),
    "limits": Verb("roost.cli.limits", "app", "Show and change how fast keys may be."),
    "endpoints": Verb("roost.cli.endpoints", "app", "Show, add, drain and test model servers, here and elsewhere."),
    "usage": Verb("roost.cli.usage", "usage", "Show tokens, time, energy and cost by key, model and day."),
    "sessions": Verb("roost.cli.sessions", "app", "List, show, search, export and remove conversations."),
    "memory": Verb("roost.cli.memory", "app", "List, search, add, export and forget what the agent remembers."),
    "skills": Verb("roost.cli.skills", "app", "List, show, add and remove ways that worked."),
    "allowed": Verb("roost.cli.allowed", "app", "List and take back which tools run without asking you."),
    "technician": Verb(
        "roost.cli.technician", "app", "Have work done that survives: start, list, show, cancel, answer."
    ),
    "audit": Verb("roost.cli.audit", "app", "Check, show and anchor the log of what agents did."),
    "route": Verb("roost.cli.route", "app", "Show which model `auto` is and why, and train what has a part in it."),
    "dashboards": Verb(
        "roost.cli.dashboards", "app", "Write Grafana dashboards and alert rules for a monitoring of your own."
    ),
    "ca": Verb("roost.cli.ca", "app", "Show the fleet's certificate authority to clients of the API."),
    "security": Verb(
        "roost.cli.security", "app", "Find what weakens this machine; keep lasting secrets under a passphrase."
    ),
    "serve": Verb("roost.cli.serve_verb", "app", "Run the services in the foreground: gateway, hub, or both."),
}
EPILOG = (
    "Example: roost chat 'What is the capital of France?'\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not installed here, 4 only another user (root) or key may, "
    "6 there is nothing of that name, 130 stopped; some verbs have more, in their own --help."
)


class VerbGroup(TyperGroup):
    """The group of all verbs: stand-ins for help and completion, the real one imported when it is run."""

    def resolve_command(self, ctx: Handle, args: list[str]) -> Handle:
        """Import the verb that `args` begins with."""
        name, command, rest = super().resolve_command(ctx, args)
        return (name, load(name), rest) if name in VERBS else (name, command, rest)


def load(name: str) -> Handle:
    """Import a verb and return its command."""
    verb = VERBS[name]
    found = getattr(import_module(verb.module), verb.name)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.help = group.help or verb.about
        return group
    single = typer.Typer(add_completion=False)
    single.command(name)(found)
    return get_command(single)


def _nothing() -> None:
    """Stand for a verb that is not imported yet."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"roost {__version__}")
        raise typer.Exit


def make_app() -> typer.Typer:
    """Assemble the command line."""
    app = typer.Typer(cls=VerbGroup, no_args_is_help=True, epilog=EPILOG, pretty_exceptions_enable=False)

    @app.callback()
    def roost(
        *,
        version: Annotated[
            bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
        ] = False,
    ) -> None:
        """Serve language models on this machine and work with them."""
        _ = version

    for name, verb in VERBS.items():
        app.command(name, help=verb.about)(_nothing)
    return app


def run_command_line() -> int:
    """Run the verb that the arguments name; return the exit code."""
    try:
        return _run()
    except RoostError as error:
        return _refused(error.message, error.fix, error.exit_code)
    except TyperException as error:
        if type(error).__name__ == NO_VERB:
            # With rich the help is printed already, and nothing is left to say.
            sys.stderr.write(f"{said}\n" if (said := error.format_message().strip()) else "")
            return USAGE
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "roost"
        said = " ".join(error.format_message().split())
        return _refused(said, f"See `{where} --help`.", int(error.exit_code))
    except typer.Abort:
        return _refused("Stopped; nothing more was done.", "", FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read it has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        reason, _, fix = user_message(error).partition(" Fix: ")
        denied = isinstance(error, PermissionError)
        return _refused(
            reason, fix or "See what it says, correct that, and run it again.", NOT_ALLOWED if denied else FAILED
        )


def _run() -> int:
    code = int(get_command(make_app()).main(prog_name="roost", standalone_mode=False) or 0)
    sys.stdout.flush()  # here a reader that has gone is still noticed
    return code


def _refused(message: str, fix: str, code: int) -> int:
    """Say what is wrong and what to do about it, as every verb does; return the exit code."""
    from roost.cli.show import plain  # others' words may be in it, and they do not steer the terminal

    sys.stderr.write(f"error: {plain(message)}\n")
    if fix:
        sys.stderr.write(f"fix: {plain(fix)}\n")
    return code
