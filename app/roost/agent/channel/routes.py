"""The channel over HTTP, for workers, and who is connected, for people. All of it is that of the key that asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import JSONResponse, Response

from roost import __version__
from roost.agent.channel.desk import Desk, NoWorkerError, ReplacedError, TooManyError
from roost.agent.channel.wire import (
    FIRST_PROTOCOL,
    MOST_ANNOUNCED_BYTES,
    PATH,
    PROTOCOL,
    PROTOCOL_HEADER,
    STATED,
    Accepted,
    Announced,
    Lease,
    Requests,
    is_ours,
    sent,
)
from roost.agent.channel.worker import Worker
from roost.agent.tool import ToolResult
from roost.gateway.errors import ApiError

OwnerOf = Callable[[Request], str]


def same_protocol(request: Request) -> None:
    """Refuse who states another version of the channel. Who states none may be a plain client of the API.

    Raises:
        ApiError: it is another one.
    """
    if PROTOCOL_HEADER in request.headers:
        speaks_ours(request)


def speaks_ours(request: Request) -> None:
    """Refuse who speaks another version of the channel.

    Raises:
        ApiError: it does.
    """
    stated = request.headers.get(PROTOCOL_HEADER)
    if not is_ours(stated):
        theirs = stated or FIRST_PROTOCOL
        text = f"This hub (Roost {__version__}) speaks version {PROTOCOL} of the channel, and not {theirs}."
        raise ApiError(422, text, code="other_protocol")


def worker_routes(desk: Desk, owner_of: OwnerOf) -> APIRouter:
    """Return the routes below `PATH`. Another key's worker is 404, as one that does not exist."""
    router = APIRouter(dependencies=[Depends(same_protocol)])

    @router.get(PATH, summary="List connected workers and their workspaces")
    async def listed(request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [shown(worker) for worker in desk.of(owner_of(request))]})

    # looked at before the document, which another protocol may write in another way
    @router.post(PATH, summary="Connect a worker", status_code=201, dependencies=[Depends(speaks_ours)])
    async def came(request: Request, body: Announced) -> JSONResponse:
        await _small(request)
        owner = owner_of(request)
        try:
            worker = desk.announce(owner, body)
        except TooManyError as error:
            raise ApiError(429, error.message, kind="rate_limit_error", code="too_many_workers") from None
        return JSONResponse(Lease(lease=worker.lease, owner=owner).model_dump(), 201, STATED)

    @router.put(f"{PATH}/{{lease}}", summary="Change what a worker offers", status_code=204)
    async def changed(request: Request, lease: str, body: Announced) -> Response:
        await _small(request)
        desk.change(_worker(desk, owner_of(request), lease), body)
        return Response(status_code=204)

    @router.get(f"{PATH}/{{lease}}/requests", summary="Wait for something to do")
    async def asked(request: Request, lease: str, after: Annotated[int, Query(ge=0)] = 0) -> Response:
        owner = owner_of(request)
        found = await _worker(desk, owner, lease).requests(after, desk.wait_s, _left(request))
        _worker(desk, owner, lease)  # who was replaced meanwhile is told
        return Response(sent(Requests(requests=tuple(found))), media_type="application/json")

    @router.post(f"{PATH}/{{lease}}/results", summary="Say what came of a call")
    async def answered(request: Request, lease: str, body: ToolResult) -> JSONResponse:
        worker = _worker(desk, owner_of(request), lease)
        return JSONResponse(Accepted(accepted=worker.answer(body)).model_dump())

    @router.delete(f"{PATH}/{{lease}}", summary="Disconnect a worker", status_code=204)
    async def left(request: Request, lease: str) -> Response:
        desk.leave(_worker(desk, owner_of(request), lease))
        return Response(status_code=204)

    return router


def shown(worker: Worker) -> dict[str, object]:
    """Return a worker for a client: not its lease, which only its process has."""
    offered = worker.announced
    return {
        "object": "worker", "id": offered.id, "host": offered.host, "version": offered.version,
        "workspaces": [folder.model_dump() for folder in offered.workspaces],
        "tools": [spec.name for spec in offered.tools],
    }  # fmt: skip


def _worker(desk: Desk, owner: str, lease: str) -> Worker:
    try:
        return desk.worker(owner, lease)
    except ReplacedError as error:
        raise ApiError(409, error.message, code="worker_replaced") from None
    except NoWorkerError as error:
        raise ApiError(404, error.message, code="worker_not_found") from None


async def _small(request: Request) -> None:
    if len(await request.body()) > MOST_ANNOUNCED_BYTES:
        raise ApiError(413, f"A worker announces at most {MOST_ANNOUNCED_BYTES} bytes.")


async def _left(request: Request) -> None:
    """Return when who asked is not there any more."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
