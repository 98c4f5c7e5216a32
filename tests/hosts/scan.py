"""Runs on a neighbour host with its own Python: which TCP ports of an address answer a connection?

Usage: scan.py ADDRESS. Prints a JSON list of the open ports. Only for the networks that the tests make.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import select
import socket
import sys
import time
from collections.abc import Sequence

TEST_NETWORKS = ipaddress.ip_network("10.213.0.0/16")
AT_ONCE = 1000
CONNECT_S = 1.0
LAST_PORT = 65535


def answering(address: str, ports: Sequence[int]) -> list[int]:
    """Return the ports that accept a connection within a second of the last one that was asked.

    The kernel connects, and is asked once more when the time is over: a scan that was kept from running misses none.
    """
    waiting: dict[int, tuple[int, socket.socket]] = {}
    poller = select.poll()
    for port in ports:
        client = socket.socket()
        client.setblocking(False)
        if client.connect_ex((address, port)) in (0, errno.EINPROGRESS):
            waiting[client.fileno()] = (port, client)
            poller.register(client, select.POLLOUT)
        else:
            client.close()
    found: list[int] = []
    deadline, over = time.monotonic() + CONNECT_S, False
    while waiting and not over:
        left_s = deadline - time.monotonic()
        over = left_s <= 0
        for number, _ in poller.poll(max(left_s, 0) * 1000):
            port, client = waiting.pop(number)
            if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(port)
            poller.unregister(client)
            client.close()
    for _, client in waiting.values():
        client.close()
    return found


def scan(address: str) -> list[int]:
    """Return every open TCP port of `address`.

    Raises:
        ValueError: the address is not on a network that the tests made.
    """
    if ipaddress.ip_address(address) not in TEST_NETWORKS:
        raise ValueError(f"{address} is not one of ours")
    ports = range(1, LAST_PORT + 1)
    groups = (ports[first : first + AT_ONCE] for first in range(0, LAST_PORT, AT_ONCE))
    return sorted(port for group in groups for port in answering(address, group))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(scan(sys.argv[1])))
