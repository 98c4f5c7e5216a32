"""Have every gateway give the model servers of a machine no new requests, and later give them some again.

It stands in the document of drained endpoints that all gateways follow, under the name of the job: a job keeps its name
when its server is replaced, while the port, and so the endpoint's own name, is another one then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from roost.fleet.document_store import ABSENT, NomadStore, update
from roost.fleet.endpoint_list import Drain, EndpointDocument, with_drain, without_drain
from roost.fleet.endpoint_store import ENDPOINTS
from roost.fleet.jobs import MODEL_SERVICE_PREFIX
from roost.fleet.nomad_api import NomadClient


def close(client: NomadClient, jobs: Collection[str]) -> bool:
    """Give the servers of these jobs no new requests; return whether some had them.

    Raises:
        RoostError: the document cannot be written.
    """
    store = NomadStore(client, ENDPOINTS)
    before, version = store.load()
    if version == ABSENT or not jobs:  # no gateway looks there yet
        return False
    now = datetime.now(UTC).replace(microsecond=0)

    def change(document: EndpointDocument) -> EndpointDocument:
        known = {drain.endpoint for drain in document.drains}
        for job in sorted(set(jobs) - known):
            document = with_drain(document, Drain(endpoint=job, since=now))
        return document

    return update(store, change).revision != before.revision


def reopened(document: EndpointDocument, machines: Mapping[str, str], node: str) -> EndpointDocument:
    """Return the document without the drains of a machine's jobs, and of jobs that there are no more. Pure.

    `machines` has the machine of each model server's job. What a user drained, by an endpoint's own name, stays.
    """
    for drain in document.drains:
        ours = drain.endpoint.startswith(MODEL_SERVICE_PREFIX)
        if ours and machines.get(drain.endpoint, node) == node:
            document = without_drain(document, drain.endpoint)
    return document


def open_again(client: NomadClient, machines: Mapping[str, str], node: str) -> bool:
    """Let the servers of a machine have requests again; return whether one had none.

    Raises:
        RoostError: the document cannot be written.
    """
    store = NomadStore(client, ENDPOINTS)
    before, version = store.load()
    if version == ABSENT or reopened(before, machines, node) == before:
        return False
    update(store, lambda document: reopened(document, machines, node))
    return True
