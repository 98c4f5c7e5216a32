"""A node's models for other nodes: the files of its models folder over HTTP, read-only, as an ASGI application.

`GET /models/<16 hex digits>/<name>`, with ranges (RFC 9110, 14) so that a broken download goes on. Only whole files
are given: read-only, and hashed when they came. Who may ask is the listener's matter: `roost models serve` wants a
certificate of the fleet's CA.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from roost.models.gc import FOLDER
from roost.models.store import has_fitting_stamp, is_read_only

NOT_FOUND = 404


def whole_file(models_dir: Path, folder: str, name: str) -> Path | None:
    """Return the path of a file that may be given, or None."""
    if not FOLDER.fullmatch(folder) or name.startswith(".") or "/" in name:
        return None
    path = models_dir / folder / name
    if path.is_symlink() or not path.is_file():
        return None
    return path if is_read_only(path) and has_fitting_stamp(path) else None


def build(models_dir: Path, extra: Sequence[Route] = ()) -> Starlette:
    """Return the application for one models folder, with `extra` routes beside its own."""

    def give(request: Request) -> FileResponse:
        path = whole_file(models_dir, request.path_params["folder"], request.path_params["name"])
        if path is None:
            raise HTTPException(NOT_FOUND, "There is no such model file here.")
        return FileResponse(path, media_type="application/octet-stream")

    return Starlette(routes=[Route("/models/{folder}/{name}", give, methods=["GET", "HEAD"]), *extra])
