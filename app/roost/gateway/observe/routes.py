"""The route of what model servers and workers say of themselves."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import Response

from roost.gateway.observe.engines import EngineMetrics
from roost.ops.metric_names import AGENT_PAGE

TEXT = "text/plain; version=0.0.4; charset=utf-8"


def add_engine_metrics(app: FastAPI, engines: EngineMetrics) -> None:
    """Add it to the application."""

    @app.get("/metrics/engines")
    async def scrape_engines() -> Response:
        """Return the metrics of model servers and workers for Prometheus, under the fleet's labels."""
        return Response(await engines.text(), media_type=TEXT)

    @app.get(AGENT_PAGE)
    async def scrape_agent() -> Response:
        """Return nothing, for Prometheus, which asks all gateways: a hub with an agent answers before this one."""
        return Response(b"", media_type=TEXT)
