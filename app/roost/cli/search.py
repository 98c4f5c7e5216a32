"""`roost search`: the fleet's own SearXNG, which the agent's tool `web_search` uses."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

import aiohttp
import typer

from roost.agent.tools.errors import ToolError
from roost.agent.tools.searxng import Found, ask_searxng
from roost.cli.config import host_file, look, written
from roost.cli.fleet_inventory import run_bootstrap
from roost.cli.setup_machine import need_root
from roost.cli.show import plain, print_json, print_table
from roost.fleet.artifacts.from_site import has_api, site_variables
from roost.fleet.deploy import failure_reason
from roost.fleet.jobs import SEARCH_JOB
from roost.fleet.nomad_api import NomadClient
from roost.fleet.search.job import no_command
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.host_file import merge
from roost.ops.kept_file import Change, read_text
from roost.ops.site import Site, load_site
from roost.ops.variable_origins import read
from roost.ops.variables import is_on

QUERY = "what is a metasearch engine"
ASK_TIMEOUT_S, LOOK_TIMEOUT_S = 15.0, 5.0
ANSWER_WITHIN_S = 90.0
AGAIN_S = 1.0
BAD_INPUT = 2
VARIABLE = "web_search"

app = typer.Typer(
    no_args_is_help=True,
    help="Search the web from conversations: start, look at and stop the fleet's own SearXNG.",
    epilog="Example: sudo roost search enable",
)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]


@dataclass(frozen=True)
class Answered:
    """What came of a question to SearXNG; `problem` is empty where it answered as it should."""

    query: str
    results: int = 0
    unanswered: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class SearchStatus:
    """Whether search is on and works. `problem`: the last error that is known of, empty where there is none; `fix`:
    what to do about it. `half_done`: what is there is of an `enable` or `disable` that failed."""

    enabled: bool
    address: str
    healthy: bool
    problem: str
    image: str
    engines: tuple[str, ...]
    half_done: bool = False
    fix: str = ""


@app.command("enable")
def enable(
    *,
    image: Annotated[
        str, typer.Option(metavar="NAME", help="SearXNG's image, of a registry by digest, or one that Docker has.")
    ] = "",
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Ask this search engine, as SearXNG calls it; may be given several times."),
    ] = None,
    port: Annotated[int, typer.Option(help="Its port on loopback; 0: as it is set.", min=0, max=65535)] = 0,
    command: Annotated[
        str, typer.Option(metavar="WORDS", help="Without containers: what starts a SearXNG that you installed.")
    ] = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start SearXNG beside the agent, and wait until it has answered a question.

    What is chosen is kept like `bootstrap.sh --set` keeps it. Workers find it by themselves. When it cannot be started
    the settings are put back; when it runs and does not answer yet it stays. Exit codes: 0 it answers, 1 it does not,
    2 wrong usage, 4 only root may do it.

    Example: sudo roost search enable --engine duckduckgo --engine wikipedia
    """
    site = load_site()
    refuse_elsewhere(site)
    wanted: dict[str, object] = {VARIABLE: True}
    wanted |= {f"{VARIABLE}_image": image} if image else {}
    wanted |= {f"{VARIABLE}_engines": engine} if engine else {}
    wanted |= {f"{VARIABLE}_port": port} if port else {}
    wanted |= {f"{VARIABLE}_command": shlex.split(command)} if command else {}
    if site.runtime == "local" and not (command or site_variables(site)[f"{VARIABLE}_command"]):
        raise no_command()
    applied(site, wanted, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    address = load_site().search
    told = first_answer(address)
    if as_json:
        print_json({"enabled": True, "address": address, "answered": asdict(told), "healthy": not told.problem})
    elif not told.problem:
        print(f"SearXNG answers at {address}: {told.results} results for “{told.query}”.")
        for silent in told.unanswered:
            print(plain(f"! no answer from {silent}"))
        print("Workers that are connected search from now on; `roost search disable` ends it.")
    if told.problem:
        raise RoostError(
            f"SearXNG runs and does not answer as it should: {told.problem} It stays enabled.",
            fix="`sudo roost logs search` says more; `roost search status` looks again; `sudo roost search disable` "
            "takes it back.",
        )


@app.command("disable")
def disable(*, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Stop SearXNG, and forget what `enable` set.

    Example: sudo roost search disable
    """
    site = load_site()
    refuse_elsewhere(site)
    kept = read(host_file(site))
    found = look(site)[VARIABLE]
    ours: dict[str, object] = {name: None for name in kept if name.startswith(VARIABLE)}
    if not is_on(found.value) and not ours:
        print_json({"enabled": False, "changed": False}) if as_json else print("Web search is not enabled.")
        return
    below = (found.hidden[0][1] if found.hidden else False) if VARIABLE in kept else found.value
    applied(site, {**ours, VARIABLE: False if is_on(below) else None}, dry_run=dry_run, as_json=as_json)
    if not dry_run:
        print_json({"enabled": False, "changed": True}) if as_json else print("SearXNG was stopped.")


@app.command("status")
def status(
    *,
    query: Annotated[str, typer.Option(metavar="TEXT", help="Search for this, to see what comes.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show whether web search is on, where it is, and whether it answers.

    Ends with 0 when it answers or is not enabled, else with 1.

    Example: sudo roost search status --query 'weather in Vienna'
    """
    site = load_site()
    found = standing(site)
    told = asyncio.run(asked(found.address, query, ASK_TIMEOUT_S)) if query and found.address else None
    if as_json:
        print_json({**asdict(found), "answered": asdict(told) if told else None})
    else:
        show(site, found, told)
    raise typer.Exit(0 if not found.enabled or (found.healthy and not (told and told.problem)) else 1)


def show(site: Site, found: SearchStatus, told: Answered | None) -> None:
    """Print the state for people."""
    if not found.enabled:
        print("Web search is not enabled: `sudo roost search enable` starts it.")
        return
    if not found.address:
        print(f"Web search is on the fleet's first machine, {site.fleet}: ask there.")
        return
    rows = [
        ("address", found.address), ("engines", ", ".join(found.engines) or "SearXNG's own choice"),
        ("image", found.image), *((("last error", found.problem),) if found.problem else ()),
    ]  # fmt: skip
    state = "healthy" if found.healthy else "half done" if found.half_done else "not healthy"
    print_table(["search", state], rows)
    if found.fix:
        print(f"fix: {found.fix}")
    if told:
        print(f"\n{told.results} results for “{told.query}”." if not told.problem else plain(f"\n! {told.problem}"))
        for silent in told.unanswered:
            print(plain(f"! no answer from {silent}"))


def standing(site: Site) -> SearchStatus:
    """Look at SearXNG: whether it is wanted, whether it answers, and what Nomad knows where it does not."""
    variables = site_variables(site)
    engines = variables[f"{VARIABLE}_engines"]
    names = tuple(e if isinstance(e, str) else str(e.get("name")) for e in engines) if isinstance(engines, list) else ()
    wanted = is_on(look(site)[VARIABLE].value)
    on = bool(site.search) or wanted
    problem = asyncio.run(alive(site.search)) if site.search else ""
    if on and has_api(site) and not site.search:
        problem = "it is set and was not applied"
    half_done = bool(problem) and wanted != bool(site.search)
    return SearchStatus(
        enabled=on,
        address=site.search,
        healthy=bool(site.search) and not problem,
        problem=f"{problem}; {said_by_nomad(site)}".strip("; ") if problem else "",
        image=str(variables[f"{VARIABLE}_image"]) if site.runtime == "docker" else "",
        engines=names,
        half_done=half_done,
        fix=way_out(half_done=half_done) if problem else "",
    )


def way_out(*, half_done: bool) -> str:
    """Return what to do about a SearXNG that does not answer. Pure."""
    if half_done:
        return (
            "An enable or disable failed on its way: `sudo roost logs bootstrap` says where. `sudo roost search "
            "enable` tries again, `./bootstrap.sh` ends what was begun."
        )
    return "`sudo roost logs search` says why; `sudo roost search disable` takes it away."


def said_by_nomad(site: Site) -> str:
    """Return why the job does not run, as far as Nomad says it to this user."""
    try:
        client = NomadClient.from_site(site)
        job = client.job(SEARCH_JOB)
        return failure_reason(client, SEARCH_JOB, int(job["Version"])) if job else "Nomad knows no such job"
    except RoostError as error:
        return error.message


async def alive(url: str) -> str:
    """Return why SearXNG does not say that it is well; empty where it does."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)) as http,
            http.get(f"{url}/healthz") as answer,
        ):
            return "" if answer.status == 200 else f"it answers with status {answer.status}"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return f"it does not answer: {str(error) or type(error).__name__}"


async def asked(url: str, query: str, timeout_s: float) -> Answered:
    """Ask a question."""
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as http:
            found: Found = await ask_searxng(http, url, query)
    except ToolError as error:
        return Answered(query, problem=str(error))
    return Answered(query, len(found.hits), found.unanswered)


def first_answer(url: str) -> Answered:
    """Ask until there is an answer in JSON, for at most `ANSWER_WITHIN_S` seconds."""
    until = time.monotonic() + ANSWER_WITHIN_S
    while (told := asyncio.run(asked(url, QUERY, ASK_TIMEOUT_S))).problem and time.monotonic() < until:
        time.sleep(AGAIN_S)
    return told


def refuse_elsewhere(site: Site) -> None:
    """Stop where the agent is not, and where this user may not change anything.

    Raises:
        RoostError: it is another machine, or another user.
    """
    if not has_api(site):
        raise RoostError(
            f"Web search runs beside the agent, on {site.fleet}.", fix=f"Run it on {site.fleet}.", exit_code=BAD_INPUT
        )
    need_root(host_file(site))


def applied(site: Site, wanted: Mapping[str, object], *, dry_run: bool, as_json: bool) -> None:
    """Have variables set (None: taken out) and run bootstrap.sh; what fails is taken back, as far as it is kept.

    Raises:
        RoostError: it failed; it has said why.
    """
    path = host_file(site)
    before = read_text(path)
    change = Change(path, before, merge(before, wanted, path))
    if dry_run:
        if as_json:
            print_json({"file": str(path), "diff": change.diff(), "changed": bool(change)})
        else:
            print(change.diff() or f"{path} says this already.")
            print("Would then run ./bootstrap.sh. Nothing was changed.")
        return
    words = [
        w for name, value in wanted.items() for w in ("--set", f"{name}={'' if value is None else written(value)}")
    ]
    try:
        run_bootstrap(site, words, quiet=as_json)
    except RoostError as error:
        if read_text(path) != before:
            write_atomic(path, before, mode=0o600) if before else path.unlink()
            sys.stderr.write(f"{path} was put back; what was begun is undone by the next run of ./bootstrap.sh.\n")
        raise RoostError(
            f"Web search was not changed: {error.message}", fix=error.fix, exit_code=error.exit_code
        ) from None
