"""The route of what model servers and workers say of themselves."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import Response

from roost.gateway.observe.engines import EngineMetrics

TEXT = "text/plain; version=0.0.4; charset=utf-8"


def add_engine_metrics(app: FastAPI, engines: EngineMetrics) -> None:
    """Add it to the application."""

    @app.get("/metrics/engines")
    async def scrape_engines() -> Response:
        """Return the metrics of model servers and workers for Prometheus, under the fleet's labels."""
        return Response(await engines.text(), media_type=TEXT)
