"""The certificates of this machine, for the verbs that say which are near their end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryptography import x509

from roost.hosts.certificates import Certificate
from roost.ops.site import Site

ALWAYS = ("cli.pem", "node.pem")
IN_A_FLEET = ("api.pem", "engine.pem")  # a machine alone may have some of a time before, which nobody uses or renews


def look_at_certificates(site: Site) -> list[Certificate]:
    """Return the authority's certificate and those of this machine that each run keeps good."""
    authority = _look(site.nomad_ca)
    folder = site.nomad_ca.parent
    names = (*ALWAYS, *(IN_A_FLEET if site.fleet else ()))
    leaves = (_look(folder / name) for name in names)
    known = not authority.problem
    return [replace(authority, last=True), *(replace(one, last=known and one.ends >= authority.ends) for one in leaves)]


def _look(path: Path) -> Certificate:
    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except OSError as error:
        return Certificate(str(path), problem=error.strerror or str(error))
    except ValueError as error:
        return Certificate(str(path), problem=str(error))
    return Certificate(str(path), ends.timestamp())
