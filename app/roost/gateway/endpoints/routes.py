"""`/roost/v1/endpoints`: what there is, and endpoints added by hand; for administrators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic_core import from_json

from roost.engines.clients import UnknownServerError
from roost.fleet import endpoint_list
from roost.fleet.document_store import ConflictError
from roost.fleet.endpoint_list import Change, Drain, EndpointDocument, HandEndpoint
from roost.gateway.auth import caller_of
from roost.gateway.endpoints.connect import Connector, trust
from roost.gateway.endpoints.documents import endpoint_documents, pending_document
from roost.gateway.endpoints.hand import HandEndpoints, member_of
from roost.gateway.endpoints.hosts import HostUses
from roost.gateway.endpoints.trial import try_endpoint
from roost.gateway.errors import SERVER_ERROR, ApiError
from roost.gateway.registry import Registry
from roost.gateway.request.requests import read_body
from roost.ops.errors import RoostError

log = structlog.get_logger(__name__)

PATH = "/roost/v1/endpoints"
MOST_BYTES = 64 << 10
BODY_TIMEOUT_S = 10.0
Json = dict[str, Any]


class EndpointRoutes:
    """The routes' work."""

    def __init__(self, registry: Registry, hand: HandEndpoints, connect: Connector, hosts: HostUses) -> None:
        self._registry = registry
        self._hand = hand
        self._connect = connect
        self._hosts = hosts

    def all(self) -> list[Json]:
        """Return all endpoints."""
        return endpoint_documents(self._registry, self._hand.document, self._hosts.by_node())

    def one(self, name: str) -> Json:
        """Return one by its name or id. Raises `ApiError` 404."""
        for entry in self.all():
            if name in (entry["id"], entry["name"]):
                return entry
        raise _not_found(name)

    async def add(self, request: Request, *, dry_run: bool) -> JSONResponse:
        """Add an endpoint, or replace it where the body says so."""
        fields = await _read(request)
        replaces = bool(fields.pop("replace", False))
        if not fields.get("engine"):
            fields["engine"] = await self._detected(fields)
        with _told():
            endpoint = endpoint_list.made_endpoint({**fields, "added": datetime.now(UTC).replace(microsecond=0)})
            trust(endpoint.ca)
        self._check_name(endpoint)
        if self._hand.document.find(endpoint.name) and not replaces:
            raise ApiError(
                409, f"There is an endpoint named {endpoint.name!r}; remove it, or replace it.", code="endpoint_exists"
            )

        def change(document: EndpointDocument) -> EndpointDocument:
            return endpoint_list.with_endpoint(document, endpoint, replace=replaces)

        await self._change(request, change, "endpoint_added", endpoint.name, dry_run=dry_run)
        return JSONResponse({**pending_document(endpoint), "applied": not dry_run}, 200 if dry_run else 201)

    async def remove(self, request: Request, name: str, *, dry_run: bool) -> JSONResponse:
        """Forget an endpoint that was added by hand."""
        if not self._hand.document.find(name):
            entry = self.one(name)
            if entry["state"] == "gone":
                return await self.drain(request, name, wanted=False, dry_run=dry_run)
            raise ApiError(
                400, f"{name!r} comes from {entry['source']}; only what was added by hand can be removed.", param="name"
            )

        def change(document: EndpointDocument) -> EndpointDocument:
            return endpoint_list.without_endpoint(document, name)

        await self._change(request, change, "endpoint_removed", name, dry_run=dry_run)
        return JSONResponse({"object": "endpoint", "name": name, "removed": True, "applied": not dry_run})

    async def drain(self, request: Request, name: str, *, wanted: bool, dry_run: bool) -> JSONResponse:
        """Give an endpoint no new requests, or let it have them again."""
        entry = self.one(name)
        known = self._registry.get(str(entry["id"]))
        called = str(entry["name"]) if known and known.member.hand else str(entry["id"])
        now = datetime.now(UTC).replace(microsecond=0)
        drain = Drain(endpoint=called, allocation=known.member.allocation if known else "", since=now)

        def change(document: EndpointDocument) -> EndpointDocument:
            if wanted:
                return endpoint_list.with_drain(document, drain)
            # Also where an update drained all servers of its job.
            whole = endpoint_list.without_drain(document, known.member.job) if known else document
            return endpoint_list.without_drain(whole, called)

        event = "endpoint_drained" if wanted else "endpoint_undrained"
        await self._change(request, change, event, called, dry_run=dry_run)
        busy = known.in_flight if known else 0
        said = {"object": "endpoint", "name": called, "drained": wanted, "in_flight": busy, "applied": not dry_run}
        return JSONResponse(said)

    async def test(self, request: Request, name: str) -> JSONResponse:
        """Try an endpoint that there is, or with the name `-` one that the body describes."""
        fields = await _read(request)
        model, ask = str(fields.pop("model", "") or ""), bool(fields.pop("ask", True))
        if name != "-":
            known = self._registry.get(str(self.one(name)["id"]))
            if known is None:
                raise ApiError(409, f"{name!r} is not there now.", code="endpoint_not_there")
            member = known.member
        else:
            fields = {"name": "new", **fields}
            if not fields.get("engine"):
                fields["engine"] = await self._detected(fields)
            with _told():
                member = member_of(endpoint_list.made_endpoint(fields))
        with _told():
            engine = self._connect(member)
        found = await try_endpoint(engine, model, ask=ask)
        said = {"object": "endpoint.test", "name": name, "url": member.base_url, "engine": member.engine or "llama.cpp"}
        return JSONResponse({**said, **found.document()})

    def _check_name(self, endpoint: HandEndpoint) -> None:
        """See that the name is not that of something else, which it would answer for.

        Raises:
            ApiError: 409.
        """
        others = [view for view in self._registry.views() if view.id != member_of(endpoint).id]
        taken = {view.slot for view in others} | {model for view in others for model in view.models}
        if endpoint.name in taken:
            raise ApiError(409, f"{endpoint.name!r} is the name of a slot or a model.", code="endpoint_exists")

    async def _detected(self, fields: Json) -> str:
        with _told():
            url = endpoint_list.checked_url(str(fields.get("url") or ""), allow_http=bool(fields.get("allow_http")))
            try:
                return await self._connect.detect(url, str(fields.get("key") or ""), str(fields.get("ca") or ""))
            except UnknownServerError as error:
                raise ApiError(
                    400,
                    f"What kind of server answers at {url} cannot be told: {error}. Name its engine.",
                    param="engine",
                ) from None

    async def _change(self, request: Request, change: Change, event: str, name: str, *, dry_run: bool) -> None:
        with _told():
            if dry_run:
                change(self._hand.document)
                return
            await self._hand.change(change)
        log.info(event, endpoint=name, by=caller_of(request.scope).name)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what the operator has to be told into an error of the API."""
    try:
        yield
    except ConflictError as error:
        raise ApiError(503, f"{error.message} {error.fix}", kind=SERVER_ERROR, retry_after_s=1) from None
    except RoostError as error:
        raise ApiError(400, f"{error.message} {error.fix}".strip(), code="endpoint_not_valid") from None


async def _read(request: Request) -> Json:
    """Return a request's JSON object; nothing at all is an empty one.

    Raises:
        ApiError: it is something else, too large or too slow.
    """
    body = await read_body(request.scope, request.receive, limit=MOST_BYTES, timeout_s=BODY_TIMEOUT_S)
    try:
        fields = from_json(body) if body.strip() else {}
    except ValueError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "The body is no JSON object.")
    return fields


def _not_found(name: str) -> ApiError:
    return ApiError(404, f"There is no endpoint {name[:100]!r}.", code="endpoint_not_found", param="name")


def add_endpoint_routes(app: FastAPI, work: EndpointRoutes) -> None:
    """Add the routes."""

    @app.get(PATH)
    async def listed() -> JSONResponse:
        """List all endpoints: from Nomad, by hand, planned."""
        return JSONResponse({"object": "list", "data": work.all()})

    @app.post(PATH)
    async def added(request: Request, *, dry_run: bool = False) -> JSONResponse:
        """Add an endpoint by hand: `name`, `url`, and `engine`, `slot`, `key`, `models`, `auto`, `allow_http`, `ca`."""
        return await work.add(request, dry_run=dry_run)

    @app.get(PATH + "/{name}")
    async def shown(name: str) -> JSONResponse:
        """Describe one endpoint by its name or id."""
        return JSONResponse(work.one(name))

    @app.delete(PATH + "/{name}")
    async def removed(request: Request, name: str, *, dry_run: bool = False) -> JSONResponse:
        """Forget an endpoint that was added by hand."""
        return await work.remove(request, name, dry_run=dry_run)

    @app.post(PATH + "/{name}/drain")
    async def drained(request: Request, name: str, *, dry_run: bool = False) -> JSONResponse:
        """Give an endpoint no new requests; what it works on goes on."""
        return await work.drain(request, name, wanted=True, dry_run=dry_run)

    @app.post(PATH + "/{name}/undrain")
    async def undrained(request: Request, name: str, *, dry_run: bool = False) -> JSONResponse:
        """Let an endpoint have requests again."""
        return await work.drain(request, name, wanted=False, dry_run=dry_run)

    @app.post(PATH + "/{name}/test")
    async def tested(request: Request, name: str) -> JSONResponse:
        """Probe an endpoint and ask it for one token; with the name `-` one that the body describes."""
        return await work.test(request, name)
