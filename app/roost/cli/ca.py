"""`roost ca export`: the certificate of the fleet's authority, for whoever speaks to the API with TLS."""

from __future__ import annotations

import hashlib
import ssl
import sys
from pathlib import Path
from typing import Annotated

import typer

from roost.cli.show import print_json
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.site import load_site

EPILOG = """
curl:
  curl --cacert roost-ca.pem https://HOST:8443/v1/models -H "Authorization: Bearer $KEY"

OpenAI's client in Python:
  OpenAI(base_url="https://HOST:8443/v1", api_key=KEY,
         http_client=DefaultHttpxClient(verify=ssl.create_default_context(cafile="roost-ca.pem")))
or for the whole program SSL_CERT_FILE=roost-ca.pem (REQUESTS_CA_BUNDLE for requests, NODE_EXTRA_CA_CERTS for Node).

Firefox: Settings, Privacy & Security, View Certificates, Authorities, Import.
Chrome: Settings, Privacy and security, Security, Manage certificates.

Debian, Ubuntu: copy it to /usr/local/share/ca-certificates/roost-ca.crt, then `update-ca-certificates`.
Fedora, RHEL: copy it to /etc/pki/ca-trust/source/anchors/, then `update-ca-trust`.
macOS: security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain roost-ca.pem
Windows: certutil -addstore Root roost-ca.pem

Whoever trusts it trusts every certificate of this fleet, for any name: compare the fingerprint first.
"""

app = typer.Typer(no_args_is_help=True, help="The fleet's certificate authority.", rich_markup_mode=None)


@app.callback()
def authority() -> None:
    """Show the fleet's own certificate authority to clients of the API."""


@app.command("export", epilog=EPILOG.replace("\n", "\n\n"))
def export(
    *,
    out: Annotated[Path | None, typer.Option(help="File to write; without it to the standard output.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write the authority's certificate as PEM, and say its SHA-256 fingerprint. It is no secret; its key stays.

    Example: roost ca export --out roost-ca.pem
    """
    pem = read_authority(load_site().nomad_ca)
    fingerprint = fingerprint_of(pem)
    if out is not None:
        try:
            write_atomic(out, pem.encode(), mode=0o644)
        except OSError as error:
            raise RoostError(f"{out} cannot be written: {error.strerror}.", fix="Name another file.") from None
    if as_json:
        print_json({"pem": pem, "sha256": fingerprint, "file": str(out) if out else None})
        return
    if out is None:
        sys.stdout.write(pem)
    said = f"SHA-256 {fingerprint}\n"
    sys.stderr.write(said if out is None else f"{out}: {said}")


def read_authority(path: Path) -> str:
    """Return the certificate as PEM, and nothing else that may lie in the file.

    Raises:
        RoostError: it cannot be read, or is none.
    """
    try:
        text = path.read_text()
        return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(_first_certificate(text)))
    except PermissionError:
        raise RoostError(f"{path} cannot be read.", fix="Run it with sudo.", exit_code=4) from None
    except (OSError, ValueError):
        raise RoostError(f"There is no certificate in {path}.", fix="Run ./bootstrap.sh again.") from None


def _first_certificate(text: str) -> str:
    start, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if start < 0 or end < start:
        raise ValueError("no certificate")
    return text[start : end + len(ssl.PEM_FOOTER)]


def fingerprint_of(pem: str) -> str:
    """Return the SHA-256 fingerprint as browsers and openssl show it."""
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
