"""A release server on loopback: signed releases of a pretended Nomad, over HTTP or HTTPS, with faults on demand."""

from __future__ import annotations

import hashlib
import io
import shutil
import ssl
import subprocess
import threading
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from roost.fleet.nomad_binary import NomadRequest
from roost.fleet.nomad_release import Platform

VERSION = "1.11.3"
PLATFORM = Platform("linux", "amd64")
ARCHIVE = f"nomad_{VERSION}_linux_amd64.zip"
SUMS = f"nomad_{VERSION}_SHA256SUMS"
GPG = shutil.which("gpg") or "gpg"  # found now: tests change the PATH
GPGCONF = shutil.which("gpgconf") or "gpgconf"


def pretended_nomad(version: str = VERSION, padding: int = 0) -> bytes:
    """Return a shell script that says it is a Nomad, with `padding` more bytes."""
    return f'#!/bin/sh\n[ "$1" = version ] && echo "Nomad v{version}"\n#{"x" * padding}\n'.encode()


def zipped(program: bytes) -> bytes:
    """Return an archive with the program, not compressed, so that its size is what the test says."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("LICENSE.txt", "None.")
        archive.writestr("nomad", program)
    return buffer.getvalue()


@dataclass(frozen=True)
class Signer:
    """A key of its own in a gpg home folder."""

    home: Path
    fingerprint: str

    @classmethod
    def make(cls, home: Path, name: str) -> Signer:
        """Make a key without a passphrase."""
        home.mkdir(mode=0o700)
        cls._gpg(home, "--passphrase", "", "--quick-generate-key", name, "ed25519", "sign")
        listing = cls._gpg(home, "--with-colons", "--list-keys").decode()
        fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
        return cls(home, fingerprint)

    def sign(self, data: bytes) -> bytes:
        """Return a detached binary signature."""
        return self._gpg(self.home, "--detach-sign", stdin=data)

    def public(self, *, armour: bool = True) -> bytes:
        """Return the public key."""
        return self._gpg(self.home, *(["--armor"] if armour else []), "--export", self.fingerprint)

    def close(self) -> None:
        """End the agent that gpg started."""
        subprocess.run([GPGCONF, "--homedir", self.home, "--kill", "all"], check=True)

    @staticmethod
    def _gpg(home: Path, *words: str, stdin: bytes = b"") -> bytes:
        argv = [GPG, "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", *words]
        return subprocess.run(argv, input=stdin, check=True, capture_output=True).stdout


@dataclass
class ReleaseServer:
    """What the server holds, what it was asked, and where it breaks off."""

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and Range header
    cuts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # bytes after which to break off
    ranges: bool = True

    @property
    def url(self) -> str:
        """Address of the folder of all versions."""
        return f"{self.base}/nomad"

    @property
    def key_url(self) -> str:
        """Address of the signing key."""
        return f"{self.base}/key.txt"

    def put(self, name: str, content: bytes) -> None:
        """Offer a file of the version."""
        self.files[f"/nomad/{VERSION}/{name}"] = content

    def drop(self, name: str) -> None:
        """Offer a file of the version no more."""
        del self.files[f"/nomad/{VERSION}/{name}"]

    def cut(self, name: str, after: int) -> None:
        """Break off one answer for this file after some bytes."""
        self.cuts[f"/nomad/{VERSION}/{name}"].append(after)

    def asked_for(self, name: str) -> list[str]:
        """Return the Range headers (empty: none) of the requests for a file."""
        return [wanted for path, wanted in self.asked if path.endswith(f"/{name}")]

    def publish(self, signer: Signer, program: bytes) -> None:
        """Offer a good release."""
        archive = zipped(program)
        sums = (
            f"{hashlib.sha256(archive).hexdigest()}  {ARCHIVE}\n{'0' * 64}  nomad_{VERSION}_linux_arm64.zip\n".encode()
        )
        self.put(ARCHIVE, archive)
        self.put(SUMS, sums)
        self.put(f"{SUMS}.sig", signer.sign(sums))
        self.files["/key.txt"] = signer.public()


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[ReleaseServer]:
    """Run a release server on loopback until the context ends."""
    state = ReleaseServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.asked.append((self.path, wanted))
            content = state.files.get(self.path)
            if content is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            if start >= len(content) and wanted and state.ranges:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("Connection", "close")
            self.end_headers()
            cuts = state.cuts[self.path]
            self.wfile.write(content[start : start + cuts.pop(0)] if cuts else content[start:])
            self.close_connection = True

        def log_message(self, *_words: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.base = f"{'https' if tls else 'http'}://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def request_in(
    folder: Path, *sources: str, server: ReleaseServer | None = None, fingerprint: str = "0" * 40
) -> NomadRequest:
    """Return a request whose folders are all below `folder`; without a server, its address refuses connections."""
    return NomadRequest(
        version=VERSION,
        sources=sources,
        install_dir=folder / "opt",
        cache_dir=folder / "cache",
        build_dir=folder / "build",
        go_requirements=folder / "go.txt",
        release_url=server.url if server else "http://localhost:1/nomad",
        release_key_url=server.key_url if server else "http://localhost:1/key.txt",
        release_key_fingerprint=fingerprint,
        platform=PLATFORM,
    )
