"""Serves the page's files from memory, under a policy that lets nothing else run or load."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.responses import Response

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    # Trusted types: no script, ours included, can turn a text into markup.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class File:
    """One file of the page: its content, and a tag that changes with it."""

    content: bytes
    kind: str
    tag: str


def _read(folder: Traversable, prefix: str) -> dict[str, File]:
    found: dict[str, File] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found |= _read(entry, f"{prefix}{entry.name}/")
            continue
        kind = KINDS.get(entry.name[entry.name.rfind(".") :])
        if kind:
            content = entry.read_bytes()
            found[f"{prefix}{entry.name}"] = File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:16]}"')
    return found


def _files() -> dict[str, File]:
    found = _read(files(__package__ or "roost.web") / "static", "/web/")
    found["/"] = found.pop("/web/index.html")
    return found


FILES = _files()


def page(path: str, known: str = "") -> Response:
    """Return a file, or 304 where the browser has it: `known` is its `If-None-Match`."""
    file = FILES[path]
    headers = {**HEADERS, "etag": file.tag}
    if file.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.kind)
