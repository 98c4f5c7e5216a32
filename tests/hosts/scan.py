"""Runs on a neighbour host with its own Python: which TCP ports of an address answer a connection?

Usage: scan.py ADDRESS. Prints a JSON list of the open ports. Only for the networks that the tests make.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys

TEST_NETWORKS = ipaddress.ip_network("10.213.0.0/16")
AT_ONCE = 1000
CONNECT_S = 1.0
LAST_PORT = 65535


async def is_open(address: str, port: int, gate: asyncio.Semaphore) -> bool:
    """Whether the port accepts a connection within a second."""
    async with gate:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), CONNECT_S)
        except (TimeoutError, OSError):
            return False
        writer.close()
        return True


async def scan(address: str) -> list[int]:
    """Return every open TCP port of `address`.

    Raises:
        ValueError: the address is not on a network that the tests made.
    """
    if ipaddress.ip_address(address) not in TEST_NETWORKS:
        raise ValueError(f"{address} is not one of ours")
    gate = asyncio.Semaphore(AT_ONCE)
    ports = range(1, LAST_PORT + 1)
    answers = await asyncio.gather(*(is_open(address, port, gate) for port in ports))
    return [port for port, answer in zip(ports, answers, strict=True) if answer]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(scan(sys.argv[1]))))
