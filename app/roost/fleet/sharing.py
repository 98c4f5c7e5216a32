"""What one machine of a fleet has made, for the others: programs, images, packages and models over mutual TLS.

`serve` runs on the machine that builds while the playbook works on the others, and ends by itself; `Peer` asks it.
What is given is checked where it is used: by hashes beside it, by those of package lists, by the catalogue's.
Runs as `python -m roost.fleet.sharing`.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from roost.ops.errors import RoostError
from roost.ops.fetch import Fetcher

FOLDERS = ("nomad", "artifacts", "debs", "wheels")
LARGEST = 8 << 30
NOT_FOUND = 404
LOOK_EVERY_S = 1.0


def shared_file(cache_dir: Path, name: str) -> Path | None:
    """Return the path of a cached file that may be given, or None: below one of FOLDERS, finished, and no link."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] not in FOLDERS or any(part.startswith(".") for part in parts):
        return None
    path = cache_dir.joinpath(*parts)
    return path if path.is_file() and not path.is_symlink() else None


@dataclass(frozen=True)
class Peer:
    """Another machine of the fleet that serves its cache at `address`; `ca`, `cert` and `key` are PEM files of ours."""

    address: str
    ca: Path
    cert: Path
    key: Path

    def bring(self, cache_dir: Path, names: Iterable[str], notify: Callable[[str], None] = lambda _line: None) -> int:
        """Fetch files of its cache into ours where they are missing; return how many came.

        A peer that is not there, or lacks a file, is no failure: it is then made or fetched as if there were no peer.
        """
        fetcher = Fetcher(extra_ca=self.ca, identity=(self.cert, self.key))
        came = 0
        for name in names:
            target = cache_dir / name
            if target.exists():
                continue
            partial = target.with_name(f".peer-{target.name}")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                fetcher.file(f"{self.address.rstrip('/')}/cache/{name}", partial, limit=LARGEST, notify=notify)
            except RoostError as error:
                partial.unlink(missing_ok=True)
                notify(f"{self.address} gives no {name}: {error.message}")
                continue
            if target.parent.parent.name == "nomad":
                partial.chmod(0o755)
            partial.replace(target)
            came += 1
            notify(f"{name} came from {self.address}")
        return came


def peer_of(params: Mapping[str, str]) -> Peer | None:
    """Return the peer that an Ansible module's parameters `peer` and `tls_dir` name, if they name one."""
    if not params["peer"]:
        return None
    tls = Path(params["tls_dir"])
    return Peer(params["peer"], tls / "ca.pem", tls / "node.pem", tls / "node-key.pem")


def serve(listen: tuple[str, int], cache_dir: Path, models_dir: Path, tls_dir: Path, idle_s: float) -> None:
    """Serve until nobody has asked for `idle_s` seconds; only clients of the fleet's authority are answered."""
    import uvicorn
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import FileResponse
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send

    from roost.models.share import build

    asked = [time.monotonic(), 0.0]  # when last, and how many are being answered

    def give(request: Request) -> FileResponse:
        path = shared_file(cache_dir, request.path_params["name"])
        if path is None:
            raise HTTPException(NOT_FOUND, "There is no such file here.")
        return FileResponse(path, media_type="application/octet-stream")

    app: ASGIApp = build(models_dir, [Route("/cache/{name:path}", give, methods=["GET", "HEAD"])])

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        asked[1] += 1
        try:
            await app(scope, receive, send)
        finally:
            asked[1] -= 1
            asked[0] = time.monotonic()

    config = uvicorn.Config(
        counted,
        host=listen[0],
        port=listen[1],
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=tls_dir / "node.pem",
        ssl_keyfile=tls_dir / "node-key.pem",
        ssl_ca_certs=str(tls_dir / "ca.pem"),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
    )
    server = uvicorn.Server(config)

    async def run() -> None:
        served = asyncio.create_task(server.serve())
        while not served.done() and (asked[1] or time.monotonic() - asked[0] < idle_s):
            await asyncio.wait({served}, timeout=LOOK_EVERY_S)
        server.should_exit = True
        await served

    asyncio.run(run())


def main(argv: Sequence[str] | None = None) -> int:
    """Serve as the arguments say."""
    parser = argparse.ArgumentParser(prog="roost.fleet.sharing")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    for name in ("cache-dir", "models-dir", "tls-dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--idle", type=float, required=True, help="seconds without a request after which it ends")
    args = parser.parse_args(argv)
    serve((args.address, args.port), args.cache_dir, args.models_dir, args.tls_dir, args.idle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
