"""The fleet's authority on the controller, and nodes elsewhere: keys are made on the node and never leave it.

A node writes its key and asks with a signing request; the authority decides itself what the certificate says, only the
public key is taken from the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.pki import (
    CA_KEY,
    SECRET_MAKERS,
    LeafSpec,
    ensure_pki,
    ensure_secrets,
    leaf_is_good,
    load_authority,
    load_key,
    private_pem,
    sign_leaf,
    subject_of,
    write_browser_bundle,
)
from roost.ops.sealed import read_secret

NEW = ".new"


@dataclass(frozen=True)
class Authority:
    """The folders of the fleet's authority and its secrets, on the controller."""

    tls_dir: Path
    secrets_dir: Path

    def ensure(self, *, dry_run: bool = False) -> list[str]:
        """Make the authority and the secrets where they are missing; return the names of those made.

        Raises:
            RoostError: only one half of the authority is there, or the folders are not ours to write.
        """
        try:
            if not dry_run:
                for folder, mode in ((self.tls_dir, 0o755), (self.secrets_dir, 0o700)):
                    folder.mkdir(parents=True, exist_ok=True, mode=mode)
            return ensure_pki(self.tls_dir, [], dry_run=dry_run) + ensure_secrets(self.secrets_dir, dry_run=dry_run)
        except PermissionError as error:
            raise RoostError(
                f"The fleet's authority cannot be kept in {error.filename}: this user may not write there.",
                fix="Run it as root, or set fleet_tls_dir and fleet_secrets_dir to folders of yours.",
            ) from None

    def certificate(self) -> str:
        """Return the authority's certificate as PEM; empty while there is none."""
        path = self.tls_dir / "ca.pem"
        return path.read_text() if path.exists() else ""

    def secret(self, name: str) -> str:
        """Return a secret of the fleet; empty while there is none."""
        path = self.secrets_dir / name
        return read_secret(path).decode().strip() if path.exists() else ""

    def sign(self, leaves: Sequence[LeafSpec], requests: Mapping[str, str]) -> dict[str, str]:
        """Return for each request of a leaf, as PEM, its certificate.

        Raises:
            RoostError: a request is for no leaf of the node, or none at all.
        """
        ca, ca_key = load_authority(self.tls_dir)
        specs = {spec.name: spec for spec in leaves}
        signed: dict[str, str] = {}
        for name, text in requests.items():
            try:
                request = x509.load_pem_x509_csr(text.encode())
            except ValueError as error:
                raise RoostError(f"The node's request for {name} cannot be read: {error}.") from None
            key = request.public_key()
            if name not in specs or not request.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
                raise RoostError(f"The node asks for a certificate {name} that it may not have.")
            signed[name] = sign_leaf(specs[name], key, ca, ca_key).public_bytes(serialization.Encoding.PEM).decode()
        return signed


@dataclass(frozen=True)
class Node:
    """The certificates and secrets of one node. With `renew` none of its certificates is good enough."""

    tls_dir: Path
    secrets_dir: Path
    leaves: Sequence[LeafSpec]
    renew: bool = False

    def lacks(self, ca_pem: str) -> list[LeafSpec]:
        """Return the leaves that are missing, wrong or near their end, under this authority."""
        if not ca_pem or self.renew:
            return list(self.leaves)
        ca = x509.load_pem_x509_certificate(ca_pem.encode())
        return [
            spec
            for spec in self.leaves
            if not leaf_is_good(self.tls_dir / f"{spec.name}.pem", spec, ca)
            or (spec.name == "cli" and not (self.tls_dir / "cli.p12").exists())
        ]

    def requests(self, ca_pem: str) -> dict[str, str]:
        """Make a new key beside the present one for each leaf that is lacking; return the requests as PEM by name."""
        found: dict[str, str] = {}
        for spec in self.lacks(ca_pem):
            key = ec.generate_private_key(ec.SECP256R1())
            write_atomic(self.tls_dir / f"{spec.name}-key.pem{NEW}", private_pem(key), mode=0o600)
            request = x509.CertificateSigningRequestBuilder().subject_name(subject_of(spec)).sign(key, hashes.SHA256())
            found[spec.name] = request.public_bytes(serialization.Encoding.PEM).decode()
        return found

    def forget_requests(self) -> None:
        """Remove keys that `requests` made and nobody signed."""
        for spec in self.leaves:
            (self.tls_dir / f"{spec.name}-key.pem{NEW}").unlink(missing_ok=True)

    def changed(self, ca_pem: str, secrets: Mapping[str, str]) -> list[str]:
        """Return the names of what `install` would write or remove, beside leaves."""
        names = [] if self._text(self.tls_dir / "ca.pem") == ca_pem and ca_pem else ["ca"]
        names += [n for n, text in secrets.items() if self._text(self.secrets_dir / n).strip() != text.strip()]
        return names + self.withdrawn(ca_pem, secrets)

    def withdrawn(self, ca_pem: str, secrets: Mapping[str, str]) -> list[str]:
        """Return the fleet's secrets that lie here and are not this node's to hold: it was a server once.

        None where the authority itself lies, which a run by SSH may find on a node too.
        """
        if self._has_authority(ca_pem):
            return []
        return [name for name in SECRET_MAKERS if name not in secrets and (self.secrets_dir / name).exists()]

    def install(self, ca_pem: str, signed: Mapping[str, str], secrets: Mapping[str, str]) -> None:
        """Write the authority's certificate, the signed leaves with the keys made for them, and secrets; remove others.

        Raises:
            RoostError: a certificate is not for the key that was made, or not of this authority.
        """
        ca = x509.load_pem_x509_certificate(ca_pem.encode())
        specs = {spec.name: spec for spec in self.leaves}
        write_atomic(self.tls_dir / "ca.pem", ca_pem)
        for name, text in signed.items():
            waiting = self.tls_dir / f"{name}-key.pem{NEW}"
            key, certificate = load_key(waiting), x509.load_pem_x509_certificate(text.encode())
            if key.public_key() != certificate.public_key() or name not in specs:
                raise RoostError(f"The certificate {name} is not for the key that this node made.", fix="Run it again.")
            if name == "cli":
                (self.tls_dir / "cli.p12").unlink(missing_ok=True)
            waiting.replace(self.tls_dir / f"{name}-key.pem")
            write_atomic(self.tls_dir / f"{name}.pem", text)
            if name == "cli":
                write_browser_bundle(self.tls_dir / "cli.p12", key, certificate, ca)
        for name, text in secrets.items():
            write_atomic(self.secrets_dir / name, text.strip() + "\n", mode=0o600)
        for name in self.withdrawn(ca_pem, secrets):
            (self.secrets_dir / name).unlink()

    def _has_authority(self, ca_pem: str) -> bool:
        """Say whether the key of this authority lies here, not one of a time before; one that cannot be read does."""
        path = self.tls_dir / CA_KEY
        if not path.exists():
            return False
        try:
            return (
                not ca_pem
                or load_key(path).public_key() == x509.load_pem_x509_certificate(ca_pem.encode()).public_key()
            )
        except (RoostError, ValueError, TypeError, UnsupportedAlgorithm):
            return True

    @staticmethod
    def _text(path: Path) -> str:
        return path.read_text() if path.exists() else ""
