"""Runs on a disposable host: a search engine of one page, which SearXNG asks.

Usage: pages.py PORT
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Pages(BaseHTTPRequestHandler):
    """Finds one page about anything."""

    def do_GET(self) -> None:
        """Answer a question."""
        about = parse_qs(urlsplit(self.path).query)["q"][0]
        found = {"items": [{"t": f"About {about}", "u": "https://example.org/a", "c": "All of it."}]}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Pages).serve_forever()
