"""The server behind `roost models serve`: other nodes of the fleet may fetch model files from this one."""

from __future__ import annotations

import ssl

import uvicorn

from roost.cli.serve_listen import Listener, open_socket, parse_listen
from roost.models.share import build
from roost.ops.errors import USAGE, RoostError
from roost.ops.site import Site

NODE = "node"  # stem of the certificate by which the fleet knows a node
MOST_AT_ONCE = 64  # connections; a node fetches two files side by side


def run(listen: str, site: Site) -> None:
    """Serve the models of this node until a signal ends it.

    Raises:
        RoostError: the address cannot be listened on, or the certificates cannot be read.
    """
    where = address_of(listen)
    config = server_config(site)
    sock = open_socket(where)
    host, port = sock.getsockname()[:2]
    address = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"Serving {site.models_dir} at {address}; Ctrl-C ends it.", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[sock])
    except KeyboardInterrupt:  # uvicorn has ended in order and passes it on
        print("Stopped.")


def address_of(listen: str) -> Listener:
    """Return the listener that `ADDR:PORT` means.

    Raises:
        RoostError: it is no address of that form.
    """
    try:
        return parse_listen(listen)
    except ValueError:
        raise RoostError(f"{listen!r} is not ADDR:PORT.", fix="Write 192.0.2.7:8465, say.", exit_code=USAGE) from None


def server_config(site: Site) -> uvicorn.Config:
    """Return the server's settings: the node's certificate, and only clients of the fleet's CA.

    Raises:
        RoostError: the certificates cannot be read.
    """
    tls = site.nomad_ca.parent
    config = uvicorn.Config(
        build(site.models_dir),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_AT_ONCE,
        ssl_certfile=tls / f"{NODE}.pem",
        ssl_keyfile=tls / f"{NODE}-key.pem",
        ssl_ca_certs=str(site.nomad_ca),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
    )
    try:
        config.load()
    except PermissionError:
        raise RoostError("Only root may read the node's key.", fix="Run it with sudo.", exit_code=4) from None
    except OSError as error:  # ssl.SSLError too
        raise RoostError(f"The node's certificate cannot be used: {error}.", fix="Run ./bootstrap.sh again.") from None
    return config
