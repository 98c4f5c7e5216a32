"""Fetch files over HTTP(S): resumable, through the environment's proxies, with a company's CA where one is given."""

from __future__ import annotations

import errno
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from roost.ops.errors import RoostError

CONNECT_TIMEOUT_S = 6.0  # short: a server that cannot be reached must cost seconds, not minutes
READ_TIMEOUT_S = 60.0
FRUITLESS_ATTEMPTS = 3
REPORT_EVERY_S = 5.0
BLOCK_BYTES = 1 << 18
MEBIBYTE = 1 << 20
PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416
BROKEN = (OSError, http.client.HTTPException)
CHECK_NETWORK = "Check the network, DNS and the proxy settings (HTTPS_PROXY, NO_PROXY)."


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT_S)


class _TlsConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT_S)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self.tls = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_TlsConnection, req, context=self.tls)


def _restart(response: http.client.HTTPResponse, have: int) -> bool:
    """Say whether a response starts at byte 0 although `have` bytes were there."""
    if response.status != PARTIAL_CONTENT:
        return True
    return not response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _explain(url: str, error: Exception) -> RoostError:
    if isinstance(error, urllib.error.HTTPError):
        return RoostError(f"{url} answered {error.code} {error.reason}.", fix="Check the address and the version.")
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    host = urlsplit(url).netloc
    if isinstance(reason, ssl.SSLCertVerificationError):
        return RoostError(
            f"The certificate of {host} is not trusted: {reason.verify_message}.",
            fix="Behind a proxy with a CA of its own, give that CA as extra_ca_bundle.",
        )
    if isinstance(reason, TimeoutError):
        return RoostError(f"{host} did not answer in time.", fix=CHECK_NETWORK)
    return RoostError(f"{host} could not be reached: {reason}.", fix=CHECK_NETWORK)


def _unwritable(path: Path, error: OSError) -> RoostError:
    fix = "Free disk space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else f"See to it that {path} can be written"
    return RoostError(f"{path} cannot be written: {error.strerror}.", fix=f"{fix}, then run it again.")


@dataclass(frozen=True, slots=True)
class Fetcher:
    """How to reach servers: the system's CAs, and those of `extra_ca` (a PEM file) in addition."""

    extra_ca: Path | None = None

    def small(self, url: str, *, limit: int = MEBIBYTE) -> bytes:
        """Return the content of `url`, at most `limit` bytes.

        Raises:
            RoostError: it cannot be had, or is larger.
        """
        try:
            with self._open(url, 0) as response:
                data = response.read(limit + 1)
        except BROKEN as error:
            raise _explain(url, error) from error
        if len(data) > limit:
            raise RoostError(f"{url} is larger than {limit} bytes.", fix="Check the address.")
        return data

    def file(self, url: str, path: Path, *, limit: int, notify: Callable[[str], None]) -> None:
        """Download `url` to `path`, at most `limit` bytes, going on where an earlier call stopped.

        What is there when a call fails stays, so that the next one can go on; callers check the content's hash.

        Raises:
            RoostError: it cannot be had, or is larger.
        """
        fruitless = 0
        while True:
            have = path.stat().st_size if path.exists() else 0
            try:
                return self._go_on(url, path, have, limit, notify)
            except urllib.error.HTTPError as error:
                if error.code != RANGE_NOT_SATISFIABLE or not have:
                    raise _explain(url, error) from error
                if error.headers.get("Content-Range", "") == f"bytes */{have}":
                    return None  # all of it was there
                path.unlink()
            except BROKEN as error:
                now = path.stat().st_size if path.exists() else 0
                fruitless = 0 if now > have else fruitless + 1
                if fruitless >= (FRUITLESS_ATTEMPTS if now else 1):
                    raise _explain(url, error) from error
                notify(f"The connection broke after {now / MEBIBYTE:.1f} MiB; going on from there")

    def _open(self, url: str, start: int) -> http.client.HTTPResponse:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise RoostError(f"{url} is neither an http nor an https address.", fix="Correct the address.")
        opener = urllib.request.OpenerDirector()  # the default one would also open files and FTP
        for handler in (
            urllib.request.ProxyHandler(),
            _Http(),
            _Https(self._context()),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(handler)
        opener.addheaders = [("User-Agent", "roost"), ("Accept-Encoding", "identity")]
        if start:
            opener.addheaders.append(("Range", f"bytes={start}-"))
        return cast("http.client.HTTPResponse", opener.open(url, timeout=CONNECT_TIMEOUT_S))

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.extra_ca is not None:
            try:
                context.load_verify_locations(cafile=self.extra_ca)
            except OSError as error:  # also ssl.SSLError
                raise RoostError(
                    f"extra_ca_bundle {self.extra_ca} cannot be used: {error}.", fix="Name a readable PEM file."
                ) from error
        return context

    def _go_on(self, url: str, path: Path, have: int, limit: int, notify: Callable[[str], None]) -> None:
        with self._open(url, have) as response:
            if have and _restart(response, have):
                have = 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else None
            if max(total or 0, have) > limit:
                raise RoostError(f"{url} is larger than {limit / MEBIBYTE:.0f} MiB.", fix="Check the address.")
            self._copy(response, path, have, total, limit, notify)

    @staticmethod
    def _copy(
        response: http.client.HTTPResponse,
        path: Path,
        have: int,
        total: int | None,
        limit: int,
        notify: Callable[[str], None],
    ) -> None:
        reported = time.monotonic()
        try:
            opened = path.open("ab" if have else "wb")
        except OSError as error:
            raise _unwritable(path, error) from error
        with opened as stream:
            while block := response.read(BLOCK_BYTES):
                have += len(block)
                if have > limit:
                    raise RoostError(f"The download exceeds {limit / MEBIBYTE:.0f} MiB.", fix="Check the address.")
                try:
                    stream.write(block)
                    stream.flush()
                except OSError as error:
                    raise _unwritable(path, error) from error
                if time.monotonic() - reported >= REPORT_EVERY_S:
                    reported = time.monotonic()
                    of = f" of {total / MEBIBYTE:.0f}" if total else ""
                    notify(f"Downloaded {have / MEBIBYTE:.0f}{of} MiB")
        if total is not None and have < total:
            raise ConnectionError("the connection ended early")
