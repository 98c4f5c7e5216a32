"""Before a machine is changed: others take over its model servers' work, and what it works on comes to its end."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roost.fleet.document_store import NomadStore
from roost.fleet.endpoint_store import ENDPOINTS
from roost.fleet.gate import Asker, Server, only_encodes, servers_of, wanted_jobs
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.fleet.rolling.endpoint_drains import close

POLL_S = 0.5
# Gateways learn of it when Nomad has rendered their file, at the latest after five seconds of quiet (its `template`
# block's default, https://developer.hashicorp.com/nomad/docs/configuration/client#wait).
QUIET_S = 6.0
TAKE_OVER_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Handover:
    """What a drain did: jobs that others took over, those that nobody else serves, and how many requests still ran.

    `lost` says that Nomad had lost its state, so that there was nothing to hand over.
    """

    taken: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    running: int = 0
    lost: bool = False


def hand_over(
    client: NomadClient,
    node: str,
    ask: Asker,
    timeout_s: float,
    *,
    set_up_anew: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Handover:
    """Give a machine's model servers no new requests where others serve the same, and wait until they are idle.

    What still runs after `timeout_s` seconds is cut off when its server ends; gateways go on with it elsewhere. A
    server that nobody else could stand in for keeps its clients: they wait while it is replaced.

    A Nomad that lost its state knows nobody's token any more, and nothing to take over. Whether it did only shows in
    that its access control can be set up once more: `set_up_anew` does so, and says whether it had to be done. A token
    that is wrong or was revoked is an error, for then there may be streams to take over.

    Raises:
        RoostError: Nomad does not answer, or does not know the token though it has its state.
    """
    try:
        drained = {drain.endpoint for drain in NomadStore(client, ENDPOINTS).load()[0].drains}
    except NomadRefusedError as error:
        if error.status != http.client.FORBIDDEN or not set_up_anew():
            raise
        return Handover(lost=True)
    taken: list[str] = []
    alone: list[str] = []
    mine: list[Server] = []
    for job in wanted_jobs(client, node):
        servers = servers_of(client, job)
        others = [server for server in servers if server.job != job["ID"] and server.job not in drained]
        if any(only_encodes(job) or not ask.token(server, TAKE_OVER_TIMEOUT_S) for server in others):
            taken.append(str(job["ID"]))
            mine += [server for server in servers if server.job == job["ID"]]
        else:
            alone.append(str(job["ID"]))
    close(client, taken)
    running = _wait_idle(mine, ask, timeout_s, sleep, now) if mine else 0
    return Handover(tuple(taken), tuple(alone), running)


def _wait_idle(
    servers: Sequence[Server],
    ask: Asker,
    timeout_s: float,
    sleep: Callable[[float], None],
    now: Callable[[], float],
) -> int:
    """Wait until servers have been idle for `QUIET_S` seconds; return how many requests run when time is over."""
    begun = quiet_since = now()
    while True:
        working = sum(ask.working(server) or 0 for server in servers)
        if working:
            quiet_since = now()
        if now() - quiet_since >= QUIET_S:
            return 0
        if now() - begun > timeout_s:
            return working
        sleep(POLL_S)
