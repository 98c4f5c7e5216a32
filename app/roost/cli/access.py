"""Which API the command line asks, with which key, and whose certificates it trusts for it."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from roost.ops.errors import USAGE, RoostError
from roost.ops.site import NOT_INSTALLED, Site, load_site


@dataclass(frozen=True)
class Access:
    """Where the API is and the key for it; without a key only what is open to all can be asked."""

    base_url: str
    key: str = ""
    ca: Path | None = None  # PEM file that is trusted for it, beside the system's authorities


def find_access() -> Access:
    """Return the API's address and key: `$ROOST_API` and `$ROOST_API_KEY`, else those of this machine.

    Raises:
        RoostError: nothing is installed here, or this user may not read the key.
    """
    base, key = os.environ.get("ROOST_API", ""), os.environ.get("ROOST_API_KEY", "")
    if base and key:
        return _checked(Access(base.rstrip("/"), key))
    try:
        site = load_site()
    except RoostError as error:
        if error.exit_code != NOT_INSTALLED:
            raise
        if base:
            fix = "export ROOST_API_KEY=KEY; `sudo roost keys add NAME` makes one on that machine."
            raise RoostError("ROOST_API is set, ROOST_API_KEY is not.", fix=fix, exit_code=USAGE) from None
        fix = "Run ./bootstrap.sh; or set ROOST_API and ROOST_API_KEY, both, to ask an API elsewhere."
        raise RoostError(error.message, fix=fix, exit_code=NOT_INSTALLED) from None
    return _checked(Access((base or site.api).rstrip("/"), key or read_key(site.api_key_file), site.trusted_for_api))


def _checked(access: Access) -> Access:
    """Return it if a request can be made of it.

    Raises:
        RoostError: the address is none, or the key holds what no header can.
    """
    try:
        fine = bool(urlsplit(access.base_url).hostname) and httpx.URL(access.base_url).scheme in ("http", "https")
    except (ValueError, httpx.InvalidURL):
        fine = False
    if not fine:
        raise RoostError(
            f"ROOST_API is {access.base_url!r}, which is no address of an API.",
            fix="Write http://127.0.0.1:8360, say.",
            exit_code=USAGE,
        )
    if not (access.key.isascii() and access.key.isprintable()):
        raise RoostError(
            "The API key holds characters that no key has.",
            fix="Copy it again, without anything else.",
            exit_code=USAGE,
        )
    return access


def find_access_of(site: Site) -> tuple[Access, str]:
    """Return access to the site's API, without the key where it cannot be read, and why it cannot.

    Raises:
        RoostError: the address is none.
    """
    base = _checked(Access((os.environ.get("ROOST_API") or site.api).rstrip("/"))).base_url
    try:
        key = os.environ.get("ROOST_API_KEY") or read_key(site.api_key_file)
        return _checked(Access(base, key, site.trusted_for_api)), ""
    except RoostError as error:
        return Access(base, ca=site.trusted_for_api), str(error)


def trusting(ca: Path | None) -> ssl.SSLContext | bool:
    """Return what checks certificates: the system's authorities, and this one if it is given."""
    if ca is None:
        return True
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=ca)
    return context


def read_key(path: Path) -> str:
    """Read the API's key.

    Raises:
        RoostError: it is missing, or only root may read it.
    """
    try:
        return path.read_text().strip()
    except PermissionError:
        raise RoostError(
            f"The key file {path} can only be read by root.",
            fix="Run the command with sudo, or set ROOST_API_KEY.",
            exit_code=4,
        ) from None
    except OSError as error:
        raise RoostError(
            f"The key file {path} cannot be read: {error.strerror}.", fix="Run ./bootstrap.sh again."
        ) from None


def on_loopback(base_url: str) -> bool:
    """Say whether an address is on this machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
