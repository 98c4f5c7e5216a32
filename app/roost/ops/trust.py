"""The certificates trusted while fetching: the system's and, in addition, a proxy's. Written for one run only."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from roost.ops.errors import RoostError

SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def system_bundle() -> Path | None:
    """Return the file of the system's certificates, if there is one."""
    known = ssl.get_default_verify_paths()
    names = (os.environ.get("SSL_CERT_FILE", ""), known.cafile or "", known.openssl_cafile, *SYSTEM_BUNDLES)
    return next((Path(name) for name in names if name and Path(name).is_file()), None)


def write_trust(extra: Path, target: Path) -> Path:
    """Write the system's certificates and those of `extra` to one PEM file, readable for everyone.

    Raises:
        RoostError: `extra` cannot be read or holds no certificate.
    """
    try:
        ssl.create_default_context().load_verify_locations(cafile=extra)
        added = extra.read_text()
    except (OSError, UnicodeDecodeError) as error:  # an ssl.SSLError is an OSError
        raise RoostError(
            f"The CA file {extra} cannot be used: {error}.", fix="Set extra_ca_bundle to a PEM file of certificates."
        ) from error
    system = system_bundle()
    own = system.read_text() if system is not None else ""
    target.write_text(f"{own.rstrip()}\n{added}")
    target.chmod(0o644)
    return target
