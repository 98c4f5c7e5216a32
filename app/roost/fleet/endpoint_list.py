"""Endpoints added by hand, and endpoints that are drained, as data: the document that holds them and its changes. Pure.

Every gateway of a fleet reads the same document. It holds the endpoints' keys, which are never shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_serializer

from roost.ops.errors import NOT_FOUND, USAGE, RoostError
from roost.ops.validation import in_words

EngineName = Literal["llama.cpp", "llama-cpp-python", "ollama", "lmstudio", "vllm", "openai", "anthropic"]
CLOUD: frozenset[str] = frozenset({"openai", "anthropic"})
RESERVED = frozenset({"auto", "main", "router", "specialist", "memory", "embedding", "rerank"})
CERTIFICATES = re.compile(r"-----BEGIN CERTIFICATE-----")
HIGHEST_PORT = 65535
NUMBERS = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*\.?", re.IGNORECASE)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class HandEndpoint(BaseModel):
    """One endpoint that somebody added.

    `slot` is what it serves, its own name if it is empty. `models` are those that it may offer, all if empty. `auto`
    says that it may be used where nobody asked for it by its name, or by that of one of its models: prompts then go
    there unasked. `allow_http`: its prompts, answers and key may go over a network that others can read. `ca` are
    certificates (PEM) of authorities to trust beside the system's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    url: Annotated[str, Field(min_length=1, max_length=500)]
    engine: EngineName
    slot: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._-]{0,62})?$")] = ""
    key: SecretStr = SecretStr("")
    models: Annotated[tuple[ModelName, ...], Field(max_length=200)] = ()
    tier: Annotated[str, Field(max_length=32)] = ""
    auto: bool = False
    allow_http: bool = False
    ca: Annotated[str, Field(max_length=16384)] = ""
    added: AwareDatetime | None = None

    @field_serializer("key", when_used="json")
    def _key_text(self, key: SecretStr) -> str:
        return key.get_secret_value()

    @property
    def serves(self) -> str:
        """Return the slot that it serves."""
        return self.slot or self.name

    def shown(self) -> dict[str, object]:
        """Return what may be shown of it: never the key."""
        found = self.model_dump(mode="json", exclude={"key", "ca"})
        return {**found, "slot": self.serves, "key": bool(self.key.get_secret_value()), "ca": bool(self.ca)}


class Drain(BaseModel):
    """An endpoint that gets no new requests. With `allocation` it is that server only, not the next at its address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: Annotated[str, Field(min_length=1, max_length=300)]
    allocation: str = ""
    since: AwareDatetime | None = None


class EndpointDocument(BaseModel):
    """All of them. `revision` grows with each change, so that of two copies the newer one is known."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    revision: int = 0
    endpoints: tuple[HandEndpoint, ...] = ()
    drains: tuple[Drain, ...] = ()

    def find(self, name: str) -> HandEndpoint | None:
        """Return the endpoint of that name."""
        return next((endpoint for endpoint in self.endpoints if endpoint.name == name), None)

    def text(self) -> str:
        """Return the document as JSON, keys included; what has its default is left out."""
        return self.model_dump_json(exclude_defaults=True)


Change = Callable[[EndpointDocument], EndpointDocument]


def parse_document(text: str) -> EndpointDocument:
    """Read a document; nothing at all is an empty one.

    Raises:
        ValueError: it is no such document. The text says where, and never what stands there: that may be a key.
    """
    if not text.strip():
        return EndpointDocument()
    try:
        return EndpointDocument.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(in_words(error)) from None


def made_endpoint(fields: dict[str, object]) -> HandEndpoint:
    """Make an endpoint from its fields. Without `auto` a cloud is used by name only, everything else without asking.

    Raises:
        RoostError: a value is not allowed.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    given.setdefault("auto", given.get("engine") not in CLOUD)
    try:
        endpoint = HandEndpoint.model_validate(given)
    except ValidationError as error:
        raise RoostError(
            f"The endpoint is not valid: {in_words(error)}.", fix="Correct that.", exit_code=USAGE
        ) from None
    endpoint = endpoint.model_copy(update={"url": checked_url(endpoint.url, allow_http=endpoint.allow_http)})
    if endpoint.name in RESERVED:
        raise RoostError(
            f"{endpoint.name!r} is the name of a role.",
            fix=f"Choose another name; to serve the role give it as the slot: --slot {endpoint.name}",
            exit_code=USAGE,
        )
    if endpoint.slot and endpoint.slot != endpoint.name and not endpoint.auto:
        raise RoostError(
            f"Serving the slot {endpoint.slot!r}, the endpoint would get prompts of those who did not ask for it.",
            fix="Leave the slot out, or allow that (--auto).",
            exit_code=USAGE,
        )
    if endpoint.ca and not CERTIFICATES.search(endpoint.ca):
        raise RoostError(
            "The certificates of the authority are no PEM text.", fix="Give a file of certificates.", exit_code=USAGE
        )
    key = endpoint.key.get_secret_value()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise RoostError(
            "The endpoint's key holds characters that no key has.", fix="Copy it again, nothing else.", exit_code=USAGE
        )
    return endpoint


def checked_url(text: str, *, allow_http: bool) -> str:
    """Return a base URL without a trailing slash and without `/v1`, which the gateway adds itself.

    Raises:
        RoostError: it is none, holds what does not belong there, or would send prompts readable over a network.
    """
    shape = "Write http://HOST:PORT or https://HOST."
    try:
        parts = urlsplit(text.strip())
        if parts.username is not None or parts.password is not None:
            raise RoostError(
                "The URL holds a user or a password.", fix="Give the key with --key-file.", exit_code=USAGE
            )
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RoostError(f"{text!r} is no URL: {error}.", fix=shape, exit_code=USAGE) from None
    if parts.scheme not in ("http", "https") or not host or re.search(r"\s", text.strip()):
        raise RoostError(f"{text!r} is no URL of a server.", fix=shape, exit_code=USAGE)
    if parts.query or parts.fragment:
        raise RoostError(f"{text!r} has a query or a fragment, which a base URL has not.", fix=shape, exit_code=USAGE)
    _check_address(host)
    if parts.scheme == "http" and not is_loopback(host) and not allow_http:
        raise RoostError(
            f"{text!r} is http beyond this machine: prompts, answers and the key could be read on the way.",
            fix="Use https, or say that the network may be trusted (--allow-http).",
            exit_code=USAGE,
        )
    shown = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.scheme}://{shown}{f':{port}' if port is not None else ''}{path}"


def _check_address(host: str) -> None:
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host)
    except ValueError:
        if not NUMBERS.fullmatch(host):
            return  # a name
        # Resolvers read 2852039166 and 0xa9.254.169.254 as addresses, too.
        raise RoostError(
            f"{host} is an address in an unusual form.", fix="Write it as 192.0.2.1.", exit_code=USAGE
        ) from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise RoostError(
            f"{host} is no address of a model server.", fix="Give the host's own address.", exit_code=USAGE
        )


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, by its name or address alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- Changes: document in, document out --------------------------------------------------------------------------


def with_endpoint(document: EndpointDocument, endpoint: HandEndpoint, *, replace: bool = False) -> EndpointDocument:
    """Add an endpoint.

    Raises:
        RoostError: the name is taken, and it shall not be replaced.
    """
    if document.find(endpoint.name) and not replace:
        raise RoostError(
            f"There is an endpoint named {endpoint.name!r}.",
            fix="Choose another name, or give --replace.",
            exit_code=USAGE,
        )
    others = tuple(other for other in document.endpoints if other.name != endpoint.name)
    return _next(document, endpoints=(*others, endpoint))


def without_endpoint(document: EndpointDocument, name: str) -> EndpointDocument:
    """Forget an endpoint, and that it was drained.

    Raises:
        RoostError: there is none of that name.
    """
    if not document.find(name):
        raise RoostError(
            f"No endpoint named {name!r} was added by hand.", fix="See `roost endpoints list`.", exit_code=NOT_FOUND
        )
    return _next(
        document,
        endpoints=tuple(endpoint for endpoint in document.endpoints if endpoint.name != name),
        drains=tuple(drain for drain in document.drains if drain.endpoint != name),
    )


def with_drain(document: EndpointDocument, drain: Drain) -> EndpointDocument:
    """Drain an endpoint; one that is drained stays so."""
    kept = [other for other in document.drains if other.endpoint != drain.endpoint]
    if len(kept) < len(document.drains) and any(
        (other.endpoint, other.allocation) == (drain.endpoint, drain.allocation) for other in document.drains
    ):
        return document
    return _next(document, drains=(*kept, drain))


def without_drain(document: EndpointDocument, endpoint: str) -> EndpointDocument:
    """Let an endpoint have requests again; without effect if it is not drained."""
    kept = tuple(drain for drain in document.drains if drain.endpoint != endpoint)
    return _next(document, drains=kept) if len(kept) < len(document.drains) else document


def _next(document: EndpointDocument, **update: object) -> EndpointDocument:
    return document.model_copy(update={"revision": document.revision + 1, **update})
