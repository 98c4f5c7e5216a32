"""Fetch files over HTTP(S): resumable, through the environment's proxies, with a company's CA where one is given.

What arrives is in the file at once, so that a killed download goes on at the byte where it stopped. A server that
refuses for now (429, 5xx) is asked again later.
"""

from __future__ import annotations

import errno
import http.client
import random
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from roost.ops.errors import RoostError
from roost.ops.rate import Rate
from roost.ops.retry import RETRY_STATUSES, asked_wait_s, wait_s

CONNECT_TIMEOUT_S = 6.0  # short: a server that cannot be reached must cost seconds, not minutes
READ_TIMEOUT_S = 60.0
FRUITLESS_ATTEMPTS = 3
REPORT_EVERY_S = 5.0
BLOCK_BYTES = 1 << 18  # at most what a killed download loses of what it had received
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
    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        super().__init__(context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # trusts nobody, and is not used
        self.tls = context  # reading a machine's certificates takes tens of milliseconds: only for who needs them

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_TlsConnection, req, context=self.tls())


class _Token(urllib.request.BaseHandler):
    """Sends a token to the server it was given for, and to no other that it redirects to."""

    def __init__(self, token: str, url: str) -> None:
        self.token = token
        self.origin = urlsplit(url)[:2]

    def http_request(self, req: urllib.request.Request) -> urllib.request.Request:
        if self.token and urlsplit(req.full_url)[:2] == self.origin:
            req.add_unredirected_header("Authorization", f"Bearer {self.token}")
        return req

    https_request = http_request


class RefusedError(RoostError):
    """A server answered with an error; `status` is its HTTP status, `code` what it says in X-Error-Code."""

    def __init__(self, message: str, *, fix: str, status: int, code: str) -> None:
        super().__init__(message, fix=fix)
        self.status = status
        self.code = code


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _restart(response: http.client.HTTPResponse, have: int) -> bool:
    """Say whether a response starts at byte 0 although `have` bytes were there."""
    if response.status != PARTIAL_CONTENT:
        return True
    return not response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _explain(url: str, error: Exception) -> RoostError:
    if isinstance(error, urllib.error.HTTPError):
        again = error.code in RETRY_STATUSES
        return RefusedError(
            f"{url} answered {error.code} {error.reason}.",
            fix="Try again later." if again else "Check the address and the version.",
            status=error.code,
            code=error.headers.get("X-Error-Code", ""),
        )
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
    """How to reach servers: the system's CAs, and those of `extra_ca` (a PEM file) in addition.

    `token` is sent to the server that is asked, never to another one that it redirects to. `identity` is a certificate
    and its key (PEM files) for servers that ask who comes.
    """

    extra_ca: Path | None = None
    token: str = field(default="", repr=False)
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    identity: tuple[Path, Path] | None = None

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

    def part(self, url: str, start: int, count: int) -> tuple[bytes, int]:
        """Return the bytes of `url` from `start` on, at most `count` of them, and the file's size (0 if not said).

        Raises:
            RoostError: it cannot be had, or the server cannot send a part of a file.
        """
        failures = 0
        while True:
            try:
                return self._part(url, start, count)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in RETRY_STATUSES:
                    raise _explain(url, error) from error
                failures += 1
                self._wait(url, error, failures, lambda _line: None)
            except BROKEN as error:
                failures += 1
                if failures >= FRUITLESS_ATTEMPTS or isinstance(error, urllib.error.URLError):
                    raise _explain(url, error) from error
                self.sleep(wait_s(failures, 0.0, self.chance()) or 0.0)

    def _part(self, url: str, start: int, count: int) -> tuple[bytes, int]:
        with self._open(url, start, start + count) as response:
            if _restart(response, start):
                raise RoostError(
                    f"{urlsplit(url).netloc} cannot send a part of a file.",
                    fix="Download the file, and name its path instead.",
                )
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            size = int(total) if total.isdigit() else 0
            wanted = min(count, size - start) if size else count
            data = response.read(wanted)
        if len(data) < wanted and size:
            raise ConnectionError("the connection ended early")
        return data, size

    def file(self, url: str, path: Path, *, limit: int, notify: Callable[[str], None]) -> None:
        """Download `url` to `path`, at most `limit` bytes, going on where an earlier call stopped.

        What is there when a call fails stays, so that the next one can go on; callers check the content's hash.

        Raises:
            RoostError: it cannot be had, or is larger.
        """
        fruitless = refusals = 0
        while True:
            have = _size(path)
            try:
                return self._go_on(url, path, have, limit, notify)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in RETRY_STATUSES:
                    refusals += 1
                    self._wait(url, error, refusals, notify)
                    continue
                if error.code != RANGE_NOT_SATISFIABLE or not have:
                    raise _explain(url, error) from error
                if error.headers.get("Content-Range", "") == f"bytes */{have}":
                    return None  # all of it was there
                path.unlink()
            except BROKEN as error:
                now = _size(path)
                if now > have:
                    fruitless = refusals = 0
                else:
                    fruitless += 1
                unreachable = isinstance(error, urllib.error.URLError) and not now
                if fruitless >= (1 if unreachable else FRUITLESS_ATTEMPTS):
                    raise _explain(url, error) from error
                stalled = "stood still" if isinstance(error, TimeoutError) else "broke"
                notify(f"The connection {stalled} after {now / MEBIBYTE:.1f} MiB; going on from there")
                if fruitless:
                    self.sleep(wait_s(fruitless, 0.0, self.chance()) or 0.0)

    def _wait(self, url: str, error: urllib.error.HTTPError, refusals: int, notify: Callable[[str], None]) -> None:
        """Wait before the server is asked again, or give up."""
        asked = asked_wait_s(dict(error.headers.items()), datetime.now(UTC))
        delay = wait_s(refusals, asked, self.chance())
        if delay is None:
            raise _explain(url, error) from error
        notify(f"{urlsplit(url).netloc} answered {error.code}; asking again in {delay:.0f} s")
        self.sleep(delay)

    def _open(self, url: str, start: int, end: int = 0) -> http.client.HTTPResponse:
        """Ask for `url` from byte `start` on, up to but not including `end` if that is given."""
        if urlsplit(url).scheme not in {"http", "https"}:
            raise RoostError(f"{url} is neither an http nor an https address.", fix="Correct the address.")
        opener = urllib.request.OpenerDirector()  # the default one would also open files and FTP
        for handler in (
            urllib.request.ProxyHandler(),
            _Http(),
            _Https(self._context),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            _Token(self.token, url),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(handler)
        opener.addheaders = [("User-Agent", "roost"), ("Accept-Encoding", "identity")]
        if start or end:
            opener.addheaders.append(("Range", f"bytes={start}-{end - 1 if end else ''}"))
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
        if self.identity is not None:
            try:
                context.load_cert_chain(*self.identity)
            except OSError as error:
                raise RoostError(
                    f"The certificate {self.identity[0]} cannot be used: {error}.", fix="Run it as root."
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
        rate = Rate(have, reported)
        try:
            opened = path.open("ab" if have else "wb")
        except OSError as error:
            raise _unwritable(path, error) from error
        with opened as stream:
            while block := response.read1(BLOCK_BYTES):  # what is there: waiting for a full block would risk it
                have += len(block)
                if have > limit:
                    raise RoostError(f"The download exceeds {limit / MEBIBYTE:.0f} MiB.", fix="Check the address.")
                try:
                    stream.write(block)
                    stream.flush()
                except OSError as error:
                    raise _unwritable(path, error) from error
                if (now := time.monotonic()) - reported >= REPORT_EVERY_S:
                    reported = now
                    rate.note(have, now)
                    notify(rate.line(total))
        if total is not None and have < total:
            raise ConnectionError("the connection ended early")
