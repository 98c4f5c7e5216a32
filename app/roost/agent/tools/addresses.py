"""Which addresses a tool may reach: decided on the very one that is connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from roost.agent.tools.errors import RefusedError, ToolError

Lookup = Callable[[str, int], Awaitable[list[str]]]
SCHEMES = {"http", "https"}
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Say whether an address is of the public internet; what wraps an IPv4 address is judged by that."""
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def is_allowed(address: str, allowed: Collection[str]) -> bool:
    """Say whether a tool may connect: to public addresses, and to networks that the user named."""
    if is_public(address):
        return True
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    return any(found in ipaddress.ip_network(network, strict=False) for network in allowed)


async def system_lookup(host: str, port: int) -> list[str]:
    """Ask the system for a name's addresses."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class CheckedResolver(AbstractResolver):
    """Gives aiohttp only addresses that are allowed: it connects to these very ones, and does not ask again."""

    def __init__(self, allowed: Collection[str] = (), lookup: Lookup = system_lookup) -> None:
        self._allowed = tuple(allowed)
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return a name's addresses.

        Raises:
            ToolError: it has none.
            RefusedError: one of them is not allowed.
        """
        try:
            addresses = await self._lookup(host, port)
        except OSError as error:
            raise ToolError(f"{host} has no address: {error.strerror or error}.") from error
        for address in addresses:
            check_address(host, address, self._allowed)
        return [
            ResolveResult(
                hostname=host, host=address, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            )
            for address in addresses
            if family in {socket.AF_UNSPEC, socket.AF_INET6 if ":" in address else socket.AF_INET}
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is held."""


def check_address(host: str, address: str, allowed: Collection[str]) -> None:
    """Raises:
    RefusedError: a tool may not connect to this address.
    """
    if not is_allowed(address, allowed):
        raise RefusedError(f"{host} is at {address}, which is not on the public internet: the user has to allow it.")


def check_url(url: str, allowed: Collection[str]) -> URL:
    """Return an address as it will be fetched; an address of numbers is checked here, for no resolver sees it.

    Raises:
        RefusedError: another scheme, a name and password in it, or an address that is not allowed.
    """
    try:
        parsed = URL(url)
        host = parsed.host
    except ValueError as error:
        raise RefusedError(f"{url[:200]} is no address.") from error
    if parsed.scheme not in SCHEMES or not host:
        raise RefusedError("Only http and https addresses are fetched.")
    if parsed.user or parsed.password:
        raise RefusedError("An address with a name and password in it is not fetched.")
    try:
        literal = socket.inet_ntoa(socket.inet_aton(host))  # also 127.1, 0x7f000001, 2130706433
    except OSError:
        literal = host if ":" in host else ""
    if literal:
        check_address(host, literal, allowed)
    return parsed
