"""Certificates trusted while fetching: the system's, and a company proxy's where `extra_ca_bundle` names one."""

from __future__ import annotations

import ssl
from pathlib import Path

from roost.ops.errors import RoostError


def write_bundle(extra_ca_bundle: Path, target: Path) -> Path:
    """Write the system's authorities and the bundle's to one PEM file, for programs that take a single one.

    Raises:
        RoostError: the bundle is missing or holds no certificate.
    """
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=extra_ca_bundle)
    except OSError as error:  # ssl.SSLError too
        raise RoostError(
            f"The CA bundle {extra_ca_bundle} cannot be used: {error}.",
            fix="Set extra_ca_bundle to a PEM file of certificates.",
        ) from None
    target.write_text("".join(ssl.DER_cert_to_PEM_cert(der) for der in context.get_ca_certs(binary_form=True)))
    return target
