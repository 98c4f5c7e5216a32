"""What a joining machine and the server say to each other. All of it is checked: a stranger may have written it.

What goes into the inventory is read by Ansible, which evaluates templates: no text from a machine may hold one.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from roost.ops.errors import RoostError
from roost.ops.pki import LeafSpec
from roost.ops.validation import in_words

NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,5}$")
HOST_KEY = re.compile(r"^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+={0,2}$")
VALUE = re.compile(r"^[A-Za-z0-9:/._@,*%+~\[\]=&?-]{0,500}$")
ENVIRONMENT = (
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "GOPROXY", "PIP_INDEX_URL",
    "PIP_CERT", "SSL_CERT_FILE",
)  # fmt: skip
LEAVES = ("node", "cli", "engine")
LARGEST = 64 << 10


def _matches(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"this is no {what}")
        return text

    return AfterValidator(check)


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _variable(text: str) -> str:
    if text not in ENVIRONMENT:
        raise ValueError("this is no variable that may be passed on")
    return text


Name = Annotated[str, _matches(NAME, "name of a machine")]
Address = Annotated[str, AfterValidator(_address)]
HostKey = Annotated[str, _matches(HOST_KEY, "public key of an SSH server")]


def _leaf(text: str) -> str:
    if text not in LEAVES:
        raise ValueError("this is no certificate of a machine")
    return text


Leaf = Annotated[str, AfterValidator(_leaf)]
Variable = Annotated[str, AfterValidator(_variable)]
Value = Annotated[str, _matches(VALUE, "value of an environment variable that may be passed on")]


class Message(BaseModel):
    """One message; nothing else may be in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Wish(Message):
    """A machine asks to join. `requests` are signing requests as PEM for keys that stay with it."""

    number: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    secret: Annotated[str, Field(pattern="^[0-9a-f]{48}$")]
    name: Name
    address: Address
    host_keys: Annotated[list[HostKey], Field(min_length=1, max_length=8)]
    requests: Annotated[dict[Leaf, Annotated[str, Field(max_length=8192)]], Field(min_length=3)]
    environment: dict[Variable, Value] = Field(default_factory=dict)


class Welcome(Message):
    """What it gets: the authority, its certificates, who may log in to set it up."""

    ca: str
    signed: dict[str, str]
    secrets: dict[str, str] = Field(default_factory=dict)  # none; a clone of an earlier release wants to see that
    ssh_key: str
    controller: str
    visit: str  # by which it says that it is ready


def parse(text: bytes) -> Wish:
    """Read a wish.

    Raises:
        RoostError: something in it is not as it should be.
    """
    try:
        return Wish.model_validate_json(text)
    except ValidationError as error:
        raise RoostError(
            f"The machine's request is not valid: {in_words(error)}.", fix="Join with the same version of Roost."
        ) from None


def leaves_of(wish: Wish, *, region: str, loopback: str) -> list[LeafSpec]:
    """Return what its certificates say, as the role certificates would have it; the machine has no word in it."""
    return [
        LeafSpec("node", (f"client.{region}.nomad", "localhost", loopback, wish.address)),
        LeafSpec("cli", (f"cli.{region}.nomad",)),
        LeafSpec("engine", (wish.address, wish.name)),
    ]
