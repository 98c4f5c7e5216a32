"""`python -m roost.cli.worker_service VERB`: the worker where rc.d starts it, as the user that it is for.

`run` is the worker; HUP has it begin anew, with the variables as they are then. `check` says whether it could run,
`health` whether the API knows it; `workspace` is that of `roost`. All read the variables themselves, from the file
that ROOST_ENV_FILE names: no shell does, and no list of processes shows them.

Beyond the standard library nothing is imported before it is known to be there.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from roost.ops.errors import OTHER_HUB, USAGE, RoostError, user_message
from roost.ops.freebsd_packages import package_of

ENV_FILE = "ROOST_ENV_FILE"
STAYS_DOWN = (USAGE, OTHER_HUB)
"""Exit codes after which it is not started anew: it is asked for what cannot be, or another hub answers and would get
the key each time."""
NEEDED = ("ROOST_API", "ROOST_API_KEY")
WORKER, WORKSPACE = "worker", "workspace"
VERBS = {WORKER: "roost.cli.worker", WORKSPACE: "roost.cli.workspace"}
"""What of `roost` can be run: all of its verbs need packages that such a host has not."""
RUN, CHECK, HEALTH = "run", "check", "health"
ENDS = frozenset({signal.SIGTERM, signal.SIGINT})
BEGINS_ANEW = signal.SIGHUP


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words say; return the exit code."""
    verb, *rest = (sys.argv[1:] if words is None else list(words)) or [CHECK]
    as_started = dict(os.environ)
    if verb == RUN:
        return served(lambda: prepared(lambda: roost(WORKER, rest)), as_started)
    known: dict[str, Callable[[], int]] = {
        CHECK: checked,
        HEALTH: connected,
        WORKSPACE: lambda: roost(WORKSPACE, rest),
    }
    if verb not in known:
        return refused(RoostError(f"There is no {verb}.", fix=f"Choose of {', '.join(known)}.", exit_code=USAGE))
    return prepared(known[verb])


def prepared(then: Callable[[], int]) -> int:
    """Load what is needed and the variables, then go on; say what is wrong, and return the exit code."""
    try:
        for module in VERBS.values():
            import_module(module)
        os.environ.update(variables())
        return then()
    except ImportError as error:  # also of what only some workers need, such as MCP servers
        return refused(not_loaded(error))
    except RoostError as error:
        return refused(error)
    except OSError as error:
        said, _, fix = user_message(error).partition(" Fix: ")
        return refused(RoostError(said, fix=fix or "See what it says, and correct that."))


def refused(error: RoostError) -> int:
    """Say what is wrong; return the exit code."""
    sys.stderr.write(f"error: {error.message}\nfix: {error.fix}\n")
    return error.exit_code


def not_loaded(error: ImportError) -> RoostError:
    """Return what to say where a Python package is missing, or of a release with which the worker does not work."""
    package = package_of(error.name or "", sys.version_info[:2])
    verb = "install" if isinstance(error, ModuleNotFoundError) else "upgrade"
    fix = f"pkg {verb} {package}" if package else "Install or renew what it names, or do without what needs it."
    return RoostError(f"The worker cannot be loaded: {error}.", fix=fix, exit_code=USAGE)


def variables() -> Mapping[str, str]:
    """Return what the file of variables holds.

    Raises:
        RoostError: no file is named, it cannot be read, or others than its user may read it.
    """
    from dotenv import dotenv_values

    named = os.environ.get(ENV_FILE, "")
    if not named:
        raise RoostError(f"{ENV_FILE} is not set.", fix="Set it to the file of its variables.", exit_code=USAGE)
    file = Path(named)
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        found = dotenv_values(file, interpolate=False)
    except OSError as error:
        fix = f"Copy {file}.sample there, fill it in, and give it to the worker's user: mode 400."
        raise RoostError(f"{file}: {error.strerror}.", fix=fix, exit_code=USAGE) from None
    if mode & 0o077:
        raise RoostError(f"{file} has the key, and others may read it.", fix=f"chmod 400 {file}", exit_code=USAGE)
    return {name: value for name, value in found.items() if value}


def checked() -> int:
    """See whether the worker has what it needs to begin, which is 0; the API is not asked.

    Raises:
        RoostError: a variable is missing or wrong, or root asks.
    """
    from roost.cli.access import find_access
    from roost.cli.principal import refuse_root
    from roost.cli.worker import ROOT, refuse_plain

    refuse_root(ROOT)
    for name in NEEDED:
        if not os.environ.get(name):
            fix = f"Write {name}=… into it; `sudo roost keys add NAME` on the fleet's first machine makes a key."
            raise RoostError(f"{os.environ[ENV_FILE]} has no {name}.", fix=fix, exit_code=USAGE)
    refuse_plain(find_access())
    return 0


def connected() -> int:
    """Say as what the API knows this worker, which is 0.

    Raises:
        RoostError: it does not answer, refuses the key, or no worker of this key and host is connected.
    """
    from roost.agent.channel.wire import PATH
    from roost.cli.access import find_access
    from roost.cli.api import Api
    from roost.cli.worker import host_name

    host = host_name()
    with Api(find_access()) as api:
        known = [one for one in api.get(PATH)["data"] if one["host"] == host]
    if not known:
        raise RoostError(f"The API knows no worker of this key on {host}.", fix="Its log says why.")
    folders = ", ".join(str(folder["name"]) for folder in known[0]["workspaces"])
    print(f"connected as {host}, workspaces: {folders or 'none'}")
    return 0


def roost(verb: str, words: Sequence[str]) -> int:
    """Run a verb of `roost`; return its exit code."""
    from typer.main import get_command

    try:
        get_command(import_module(VERBS[verb]).app).main(args=list(words), prog_name=f"roost {verb}")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def served(work: Callable[[], int], as_started: Mapping[str, str]) -> int:
    """Run the worker until it is stopped; HUP ends it as a stop does, and this process begins anew.

    One that ends because it is asked for what cannot be, or because another hub answers, waits to be told: daemon(8)
    would start it again and again, and that hub would get the key each time.
    """
    told: list[int] = []

    def anew(number: int, _frame: object) -> None:
        told.append(number)
        os.kill(os.getpid(), signal.SIGTERM)  # the worker's own way to end: it tells the hub

    signal.signal(BEGINS_ANEW, anew)
    code = work()
    if code in STAYS_DOWN and not told:
        signal.pthread_sigmask(signal.SIG_BLOCK, {BEGINS_ANEW, *ENDS})
        sys.stderr.write("Waits: correct that, then reload the service, or stop it.\n")
        sys.stderr.flush()
        told.append(signal.sigwait({BEGINS_ANEW, *ENDS}))
    if BEGINS_ANEW in told:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {BEGINS_ANEW, *ENDS})
        os.execve(sys.executable, sys.orig_argv, dict(as_started))  # noqa: S606  # the same process, so its pidfile holds
    return code


if __name__ == "__main__":
    sys.exit(main())
