"""The services as processes: `python3 -m roost.cli.serve [gateway|hub]`, and what `roost serve` runs.

Needs only requirements/agent.txt. Without a word it is both: the gateway with the web page, the default of one node.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal, get_args

import uvloop

from roost.cli.serve_agent import Turns, agent_hub
from roost.cli.serve_handover import open_sockets
from roost.cli.serve_hub import load_hub_settings, run_hub
from roost.cli.serve_listen import listeners
from roost.cli.serve_search import searching
from roost.cli.serve_until import serve_until_stopped
from roost.gateway.app import build, client_session, running
from roost.gateway.settings import Settings, load_settings
from roost.gateway.telemetry import Redactor, configure, known_secrets
from roost.ops.errors import RoostError
from roost.web.front import Front
from roost.web.sessions import Sessions

# Requests leave no cycles behind; Python's own 700 would have the collector run every other request under load.
GC_THRESHOLDS = (5_000, 20, 20)
# How long the thread that writes accounts down may keep the event loop from going on; Python's own is 5 ms.
SWITCH_S = 0.0005
Part = Literal["both", "gateway", "hub"]
ABOUT = {
    "both": "the gateway and the web page in one process",
    "gateway": "the API in front of the model servers, without the web page",
    "hub": "the web page, and the API as a gateway elsewhere gives it",
}


async def _run_gateway(settings: Settings, redactor: Redactor, *, with_page: bool) -> None:
    keeper = settings.listen_keeper
    places = open_sockets(listeners(settings), keeper)
    async with client_session(settings.engine_ca_file, traced=bool(settings.otel_endpoint)) as session:
        gateway = build(settings, session, on_secrets=redactor.know)
        sessions = Sessions(settings.state_dir, settings.web_session_s)
        turns = Turns()
        folder, search = settings.state_dir, searching(settings)
        hub = agent_hub(gateway.app, folder, session, turns.url, redactor, search) if with_page else None
        app = Front(hub or gateway.app, sessions) if with_page else gateway.app

        @asynccontextmanager
        async def beside(stop: Callable[[], None]) -> AsyncIterator[None]:
            # Whoever runs this starts it anew: better than answers from what was true once.
            gateway.registry.when_failed(stop)
            async with running(gateway, settings), turns.served(gateway.app, settings):
                try:
                    yield
                finally:
                    if hub:
                        await hub.close()

        gc.collect()
        gc.freeze()  # what was imported stays: going through it again and again would hold requests up
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_S)
        let_go = partial(hub.let_go, settings.drain_s) if hub else lambda: None
        await serve_until_stopped(
            app,
            places,
            settings,
            beside,
            let_go,
            on_certificate_end=partial(gateway.metrics.certificate_ends, settings.listen),
            sockets=hub is not None,
            keeper=keeper,
        )
    if gateway.registry.fault:
        raise RoostError(f"{gateway.registry.fault} died.", fix="Start the service again; its log says what happened.")


def serve(part: Part = "both", *, check: bool = False) -> None:
    """Run a service in the foreground; all settings come from ROOST_... environment variables.

    With `check` only the settings are looked at.

    Raises:
        RoostError: a setting is wrong, an address cannot be listened on, or a background task died.
    """
    if part == "hub":
        hub = load_hub_settings()
        listeners(hub)
        if not check:
            uvloop.run(run_hub(hub, configure(hub.log_level)))
        return
    settings = load_settings()
    listeners(settings)
    if not check:
        redactor = configure(settings.log_level, known_secrets(settings))
        uvloop.run(_run_gateway(settings, redactor, with_page=part == "both"))


def main(arguments: list[str] | None = None) -> None:
    """Entry of `python3 -m roost.cli.serve`: like `roost serve` without the rest of the command line."""
    parser = argparse.ArgumentParser(prog="roost serve", description="Run a service of Roost in the foreground.")
    said = "; ".join(f"{name}: {about}" for name, about in ABOUT.items())
    parser.add_argument("part", nargs="?", choices=get_args(Part), default="both", help=said)
    parser.add_argument("--check", action="store_true", help="only look at the settings")
    asked = parser.parse_args(arguments)
    try:
        serve(asked.part, check=asked.check)
    except RoostError as error:
        sys.stderr.write(f"roost serve: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
