"""`python3 -m roost.cli.healthcheck`: does the service on this machine answer? Standard library only."""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_S = 3.0


def healthy(host: str, port: int) -> bool:
    """Say whether GET /healthz answers 200."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> None:
    """Exit with 0 if the service answers, else 1."""
    host = os.environ.get("ROOST_BIND", "127.0.0.1")
    port = int(os.environ.get("ROOST_PORT", "8360"))
    sys.exit(0 if healthy(host, port) else 1)


if __name__ == "__main__":
    main()
