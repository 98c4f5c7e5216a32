"""A client of Nomad's HTTP API; standard library only, so that Ansible modules may use it on any node.

API: https://developer.hashicorp.com/nomad/api-docs
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from roost.ops.errors import RoostError
from roost.ops.sealed import read_secret

if TYPE_CHECKING:
    from roost.ops.site import Site

Json = Any
BLOCK_BYTES = 16384


class NomadUnreachableError(RoostError):
    """Nothing answers at Nomad's address, or TLS refused."""


class NomadRefusedError(RoostError):
    """Nomad answered with an error; `status` is the HTTP status."""

    def __init__(self, status: int, text: str, where: str) -> None:
        super().__init__(f"Nomad refused {where}: {status} {text.strip()}")
        self.status = status
        self.text = text


@dataclass(frozen=True)
class NomadAccess:
    """Where Nomad is and what proves who asks; `token` may be empty before the ACL is set up."""

    address: str
    ca: Path
    cert: Path
    key: Path
    token: str = ""

    @classmethod
    def below(cls, address: str, tls_dir: Path, token: str) -> NomadAccess:
        """Return the operator's access, whose certificate and authority lie in a folder."""
        return cls(address, tls_dir / "ca.pem", tls_dir / "cli.pem", tls_dir / "cli-key.pem", token)


# What Ansible's modules are given for it; their documentation: ansible/plugins/doc_fragments/roost_nomad.py.
NOMAD_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "address": {"type": "str", "required": True},
    "tls_dir": {"type": "path", "required": True},
    "token": {"type": "str", "required": True, "no_log": True},
}


class NomadClient:
    """Requests to one Nomad agent over mutual TLS."""

    def __init__(self, access: NomadAccess, *, timeout_s: float = 15.0) -> None:
        parts = urlsplit(access.address)
        if parts.scheme != "https" or not parts.hostname:
            raise RoostError(f"Nomad's address must be https://HOST:PORT, not {access.address!r}.")
        self._host, self._port = parts.hostname, parts.port or 4646
        self._access = access
        self._timeout_s = timeout_s
        self._context: ssl.SSLContext | None = None

    @classmethod
    def from_site(cls, site: Site, *, timeout_s: float = 15.0, token_file: Path | None = None) -> NomadClient:
        """Make the operator's client for an installed machine, or that of another token's owner.

        Raises:
            RoostError: the operator's token or key cannot be read by this user, or is sealed without a passphrase.
        """
        try:
            token = read_secret(token_file or site.nomad_token_file).decode().strip()
            with site.nomad_key.open("rb"):
                pass
        except PermissionError as error:
            raise RoostError(
                f"{error.filename} can only be read by root.", fix="Run the command with sudo.", exit_code=4
            ) from None
        except FileNotFoundError as error:
            raise RoostError(f"{error.filename} is missing.", fix="Run ./bootstrap.sh again.") from None
        access = NomadAccess(site.nomad, site.nomad_ca, site.nomad_cert, site.nomad_key, token)
        return cls(access, timeout_s=timeout_s)

    def _connection(self, timeout_s: float) -> http.client.HTTPSConnection:
        if self._context is None:
            try:
                context = ssl.create_default_context(cafile=str(self._access.ca))
                context.load_cert_chain(self._access.cert, self._access.key)
            except (OSError, ssl.SSLError) as error:
                raise NomadUnreachableError(f"The certificates for Nomad cannot be used: {error}.") from None
            self._context = context
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._context)

    def _open(
        self, method: str, path: str, body: Json, params: Mapping[str, object], timeout_s: float
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        query = urlencode({k: str(v) for k, v in params.items() if v is not None})
        target = f"/v1/{path.lstrip('/')}" + (f"?{query}" if query else "")
        raw = isinstance(body, bytes)
        headers = {"Content-Type": "application/octet-stream" if raw else "application/json"}
        if self._access.token:
            headers["X-Nomad-Token"] = self._access.token
        connection = self._connection(timeout_s)
        try:
            connection.request(method, target, body if raw or body is None else json.dumps(body), headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NomadUnreachableError(
                f"Nomad does not answer at {self._access.address}: {error}.",
                fix="See whether it runs with `roost doctor`, and its log with `roost logs nomad`.",
            ) from None
        if response.status >= http.client.BAD_REQUEST:
            text = response.read().decode(errors="replace")
            connection.close()
            raise NomadRefusedError(response.status, text, f"{method} {path}")
        return connection, response

    def request(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        timeout_s: float | None = None,
        params: Mapping[str, object] | None = None,
    ) -> tuple[Json, int]:
        """Send one request below `/v1/`; return the decoded answer and its `X-Nomad-Index` (0 when it has none).

        Raises:
            NomadUnreachableError, NomadRefusedError
        """
        connection, response = self._open(method, path, body, params or {}, timeout_s or self._timeout_s)
        try:
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NomadUnreachableError(f"Nomad broke off its answer to {method} {path}: {error}.") from None
        finally:
            connection.close()
        index = int(response.headers.get("X-Nomad-Index") or 0)
        if not raw:
            return None, index
        try:
            return json.loads(raw), index
        except ValueError:
            return raw.decode(errors="replace"), index

    def get(self, path: str, **params: object) -> Json:
        """GET below `/v1/`; the decoded answer."""
        return self.request("GET", path, params=params)[0]

    def put(self, path: str, body: Json, **params: object) -> Json:
        """PUT below `/v1/`; the decoded answer."""
        return self.request("PUT", path, body, params=params)[0]

    def download(self, path: str, *, timeout_s: float) -> tuple[bytes, str]:
        """GET below `/v1/` as bytes, with the answer's `Digest` header (empty when it has none).

        Raises:
            NomadUnreachableError, NomadRefusedError
        """
        connection, response = self._open("GET", path, None, {}, timeout_s)
        try:
            return response.read(), response.headers.get("Digest", "")
        except (OSError, http.client.HTTPException) as error:
            raise NomadUnreachableError(f"Nomad broke off its answer to GET {path}: {error}.") from None
        finally:
            connection.close()

    def wait_for(self, path: str, index: int, wait_s: float) -> tuple[Json, int]:
        """GET that returns when the answer is newer than `index`, or after `wait_s` seconds (a blocking query)."""
        return self.request(
            "GET",
            path,
            timeout_s=wait_s + self._timeout_s,
            params={"index": index, "wait": f"{max(1, round(wait_s))}s"},
        )

    def leader(self) -> str:
        """Return the leader's RPC address, or an empty string while there is none."""
        return str(self.get("status/leader") or "")

    def list_jobs(self) -> list[dict[str, Json]]:
        """All jobs of the default namespace, as Nomad lists them, with their meta."""
        return list(self.get("jobs", meta="true") or [])

    def job(self, job_id: str) -> dict[str, Json] | None:
        """One job's registered definition, or None."""
        try:
            answer = self.get(f"job/{quote(job_id, safe='')}")
        except NomadRefusedError as error:
            if error.status == http.client.NOT_FOUND:
                return None
            raise
        return dict(answer)

    def allocations(self, job_id: str) -> list[dict[str, Json]]:
        """The allocations of a job, newest first."""
        found: list[dict[str, Json]] = self.get(f"job/{quote(job_id, safe='')}/allocations") or []
        return sorted(found, key=lambda a: int(a.get("CreateIndex", 0)), reverse=True)

    def logs(
        self,
        alloc_id: str,
        task: str,
        kind: str = "stderr",
        *,
        follow: bool = False,
        last_bytes: int = 65536,
        from_start: bool = False,
    ) -> Iterator[bytes]:
        """Yield a task's log in blocks: its last `last_bytes` bytes, or all that is kept with `from_start`.

        With `follow` it goes on until the caller stops.

        Raises:
            NomadUnreachableError, NomadRefusedError
        """
        connection, response = self._open(
            "GET",
            f"client/fs/logs/{quote(alloc_id, safe='')}",
            None,
            {"task": task, "type": kind, "plain": "true",
             "origin": "start" if from_start else "end", "offset": 0 if from_start else last_bytes,
             "follow": "true" if follow else "false"},
            86400.0 if follow else self._timeout_s,
        )  # fmt: skip
        try:
            while block := response.read1(BLOCK_BYTES):
                yield block
        except (OSError, http.client.HTTPException) as error:
            raise NomadUnreachableError(f"Nomad broke off the log of {task}: {error}.") from None
        finally:
            connection.close()
