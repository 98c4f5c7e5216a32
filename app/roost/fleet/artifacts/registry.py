"""The fleet's own registry: images are pushed once where they were made, and pulled by digest everywhere else.

It answers to the fleet's certificates only. Protocol: OCI distribution specification, `HEAD /v2/NAME/manifests/TAG`.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from roost.fleet.artifacts.docker import Docker
from roost.ops.errors import RoostError
from roost.ops.service_names import REGISTRY

TIMEOUT_S = 30.0
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
KINDS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
SEE_LOG = f"See `journalctl -u {REGISTRY}` ({REGISTRY}.log without systemd) on the first machine."


class Registry(Protocol):
    """What is asked of a registry."""

    @property
    def address(self) -> str:
        """HOST:PORT, as in the name of an image."""

    def digest(self, reference: str) -> str:
        """Return the digest of an image that is there, else an empty string."""


@dataclass(frozen=True)
class HttpsRegistry:
    """A registry at `address` (HOST:PORT) that wants a certificate of the fleet; the files are PEM."""

    address: str
    ca: Path
    cert: Path
    key: Path

    def digest(self, reference: str) -> str:
        """Ask for the manifest of `roost/NAME:TAG`; the digest of what is there, else an empty string.

        Raises:
            RoostError: the registry does not answer, or not as one.
        """
        name, _, tag = reference.rpartition(":")
        parts = urlsplit(f"//{self.address}")
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            context.load_cert_chain(self.cert, self.key)
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=TIMEOUT_S, context=context
            )
            connection.request("HEAD", f"/v2/{name}/manifests/{tag}", headers={"Accept": KINDS})
            reply = connection.getresponse()
            reply.read()
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise RoostError(f"The registry {self.address} does not answer: {error}.", fix=SEE_LOG) from None
        if reply.status == http.client.NOT_FOUND:
            return ""
        found = reply.headers.get("Docker-Content-Digest", "")
        if reply.status != http.client.OK or not DIGEST.fullmatch(found):
            raise RoostError(f"The registry {self.address} answers {reply.status} for {reference}.", fix=SEE_LOG)
        return found


def push(docker: Docker, registry: Registry, references: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Push the images that the registry lacks; return the digest of each, and which were pushed.

    Raises:
        RoostError: the registry does not take one.
    """
    digests, pushed = {}, []
    for reference in references:
        digest = registry.digest(reference)
        if not digest:
            named = f"{registry.address}/{reference}"
            docker.call("image", "tag", reference, named)
            try:
                docker.call("image", "push", "--quiet", named)
            finally:
                # A name that is not ours would make Docker look used by somebody else.
                docker.call("image", "rm", named)
            digest = registry.digest(reference)
            if not digest:
                raise RoostError(f"The registry {registry.address} did not keep {reference}.", fix=SEE_LOG)
            pushed.append(reference)
        digests[reference] = digest
    return digests, pushed


def pull(docker: Docker, address: str, digests: Mapping[str, str], wanted: Iterable[str]) -> list[str]:
    """Pull those of the wanted images whose digest is known, by that digest, and name them; return which came.

    Raises:
        RoostError: a digest is none, or the registry does not give the image.
    """
    came = []
    for reference in wanted:
        digest = digests.get(reference, "")
        if not digest:
            continue
        if not DIGEST.fullmatch(digest):
            raise RoostError(
                f"{digest!r} is no digest of {reference}.", fix="Run the playbook for the first machine too."
            )
        named = f"{address}/{reference.rpartition(':')[0]}@{digest}"
        docker.call("image", "pull", "--quiet", named)
        docker.call("image", "tag", named, reference)
        docker.call("image", "rm", named)
        came.append(reference)
    return came
