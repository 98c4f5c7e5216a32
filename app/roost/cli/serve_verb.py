"""`roost serve`, `roost serve gateway`, `roost serve hub` on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from roost.cli import serve

app = typer.Typer(invoke_without_command=True)
CheckOption = Annotated[bool, typer.Option("--check", help="Only look at the settings, and end.")]


@app.callback()
def both(context: typer.Context, *, check: CheckOption = False) -> None:
    """Run the agent service in the foreground: the gateway and the web page in one process, as one node has it.

    Settings are environment variables, those of `roost serve gateway`. SIGTERM lets streams end for ROOST_DRAIN_S
    seconds (15), a second one ends them at once with an error event; what was used is counted either way.

    Example: ROOST_STATIC_ENDPOINTS=main=http://127.0.0.1:8080 ROOST_API_KEYS_FILE=api-keys roost serve
    """
    if not context.invoked_subcommand:
        serve.serve("both", check=check)


@app.command()
def gateway(*, check: CheckOption = False) -> None:
    """Run the API in front of the model servers, without the web page; several of them make one service.

    Listens on ROOST_BIND:ROOST_PORT (127.0.0.1:8360); beyond loopback on ROOST_LISTEN (ADDR:PORT) with ROOST_TLS_CERT
    and ROOST_TLS_KEY only. Model servers: ROOST_NOMAD_SOCKET, or ROOST_STATIC_ENDPOINTS. Keys: ROOST_API_KEYS_FILE,
    ROOST_KEYS_FILE. Usage and limits are kept in ROOST_STATE_DIR.

    Replicas find each other in Nomad (ROOST_PEER_SERVICE) or by ROOST_PEERS (base URLs with commas), and share limits,
    budgets and usage; they know each other by ROOST_PEER_KEY_FILE and, beyond loopback, by ROOST_PEER_CA.

    Example: ROOST_PEERS=http://127.0.0.1:8360,http://127.0.0.1:8370 ROOST_PEER_KEY_FILE=key roost serve gateway
    """
    serve.serve("gateway", check=check)


@app.command()
def hub(*, check: CheckOption = False) -> None:
    """Run the web page apart from the gateway. It reaches models by the gateway's public API, with the user's key.

    Listens on ROOST_BIND:ROOST_PORT (127.0.0.1:8361); beyond loopback on ROOST_LISTEN (ADDR:PORT) with ROOST_TLS_CERT
    and ROOST_TLS_KEY only. ROOST_GATEWAYS names gateways, base URLs with commas; the first that answers is asked.
    ROOST_GATEWAY_CA is the file of their authority (`roost ca export`).

    Example: ROOST_GATEWAYS=https://192.0.2.7:8443 ROOST_GATEWAY_CA=roost-ca.pem roost serve hub
    """
    serve.serve("hub", check=check)
