"""What `roost status` learns from Prometheus."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from roost.fleet.monitoring.firing import firing
from tests.support.net import free_port

ALERT = {
    "state": "firing",
    "labels": {"alertname": "RoostSlotDown", "slot": "main"},
    "annotations": {"summary": "No model server of the slot main can answer", "fix": "`roost doctor`"},
}


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/api/v1/alerts"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_alerts_that_fire_are_told_with_what_to_do() -> None:
    pending = {**ALERT, "state": "pending", "labels": {"alertname": "RoostQueueLong"}}
    body = json.dumps({"status": "success", "data": {"alerts": [ALERT, pending, ALERT]}}).encode()
    with answering(body) as url:
        assert firing(url) == ("RoostSlotDown: No model server of the slot main can answer. `roost doctor`",)
    with answering(b'{"status": "success", "data": {"alerts": []}}') as url:
        assert firing(url) == ()


def test_who_is_no_prometheus_says_nothing() -> None:
    assert firing(f"http://127.0.0.1:{free_port()}") is None
    with answering(b"<html>") as url:
        assert firing(url) is None
