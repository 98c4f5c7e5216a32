"""Serves the page's three files from memory, under a policy that lets nothing else run or load."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FILES = {
    "/": ("index.html", "text/html"),
    "/web/app.css": ("app.css", "text/css"),
    "/web/app.js": ("app.js", "text/javascript"),
    "/web/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-cache",
}
OPEN_PATHS = frozenset(FILES)


def routes() -> list[Route]:
    """Return one route a file; the files are read once, now."""
    folder = files(__package__ or "roost.web") / "static"
    return [_route(path, (folder / name).read_bytes(), kind) for path, (name, kind) in FILES.items()]


def _route(path: str, content: bytes, kind: str) -> Route:
    async def page(_request: Request) -> Response:
        return Response(content, headers=HEADERS, media_type=kind)

    return Route(path, page, methods=["GET"])
