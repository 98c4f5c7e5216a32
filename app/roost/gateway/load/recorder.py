"""Looks at the counters now and then and keeps what happened, half an hour of it; and the route that shows it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry

from roost.gateway.load.history import Point, Sample, between, newer, read
from roost.gateway.routing import View

EVERY_S = 10.0
KEPT = 180  # half an hour


class LoadRecorder:
    """One object a service. It reads what is counted anyway, so a request pays nothing for it."""

    def __init__(
        self,
        registry: CollectorRegistry,
        views: Callable[[], Collection[View]],
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._views = views
        self.every_s = every_s
        self._clock = clock
        self._ticks = ticks
        self._before, self._looked = self._read(), ticks()
        self._points: deque[Point] = deque(maxlen=KEPT)

    async def run(self) -> None:
        """Look every `every_s` seconds, for ever."""
        while True:
            await asyncio.sleep(self.every_s)
            self.look()

    def look(self) -> None:
        """Keep what happened since the last look."""
        after, now = self._read(), self._ticks()
        at_work = {view.id: view.in_flight for view in self._views()}
        self._points.append(between(self._before, after, at_work, now - self._looked))
        self._before, self._looked = after, now

    def _read(self) -> Sample:
        return read(
            self._registry.collect(), round(self._clock(), 3)
        )  # as it is shown, so that `since` finds its point

    def document(self, since: float) -> dict[str, object]:
        """Return what the API shows: what is under way now, and the points after `since` (seconds since 1970)."""
        now = between(self._before, self._read(), {}, self._ticks() - self._looked).document()
        endpoints = [
            {
                "id": view.id,
                "slot": view.slot,
                "state": view.state.value,
                "in_flight": view.in_flight,
                "slots": view.slots,
            }
            for view in self._views()
        ]
        points = [point.document() for point in newer(list(self._points), since, self._clock())]
        return {"object": "load", "every_s": self.every_s, "now": {**now, "endpoints": endpoints}, "points": points}


def add_load_route(app: FastAPI, recorder: LoadRecorder) -> None:
    """Add the route."""

    @app.get("/roost/v1/load")
    async def load(since: float = 0.0) -> JSONResponse:
        """Say what this service is doing now, and what it did in the last half hour."""
        return JSONResponse(recorder.document(since))
