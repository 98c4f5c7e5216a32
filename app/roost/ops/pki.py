"""The fleet's own certificate authority, and the random secrets made at set-up.

Certificates follow Nomad's naming for mutual TLS: `server.<region>.nomad`, `client.<region>.nomad`,
`cli.<region>.nomad` (https://developer.hashicorp.com/nomad/docs/secure/traffic/tls).
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import secrets
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from roost.ops.errors import RoostError
from roost.ops.files import write_atomic
from roost.ops.sealed import read_secret

CA_KEY = "ca-key.pem"  # lies where the authority is, and nowhere else
CA_DAYS = 3650
LEAF_DAYS = 730
RENEW_BEFORE_DAYS = 60
BACKDATE = dt.timedelta(days=1)  # a clock may take local time for UTC, or be set back later


@dataclass(frozen=True)
class LeafSpec:
    """A certificate to issue: `name` is the file's stem, `hosts` are DNS names and IP addresses it is valid for."""

    name: str
    hosts: tuple[str, ...]

    @property
    def usages(self) -> list[x509.ObjectIdentifier]:
        """What it may be used for: the API's only to serve, so that its key opens no door of Nomad; see `USAGES`."""
        return USAGES.get(self.name, [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


USAGES = {
    "api": [ExtendedKeyUsageOID.SERVER_AUTH],
    "engine": [ExtendedKeyUsageOID.SERVER_AUTH],  # of the model servers of a node in a fleet
    "join": [ExtendedKeyUsageOID.SERVER_AUTH],  # of whoever receives machines that join
    "cli": [ExtendedKeyUsageOID.CLIENT_AUTH],
}


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Roost"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _alternative_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Return what a certificate says of hosts as people write them.

    A zone (RFC 4007) means something on one machine only, and so do addresses of a link, which are left out.

    Raises:
        RoostError: it is no address, and no name that DNS could have.
    """
    names: list[x509.GeneralName] = []
    for host in hosts:
        bare = host.removeprefix("[").removesuffix("]").partition("%")[0]
        name: x509.GeneralName
        try:
            address = ipaddress.ip_address(bare)
        except ValueError:
            name = x509.DNSName(_ascii_name(host))
        else:
            if isinstance(address, ipaddress.IPv6Address) and address.is_link_local:
                continue
            name = x509.IPAddress(address)
        names.append(name)
    return names


def _ascii_name(host: str) -> str:
    """Return a name as DNS has it (IDNA 2003, as Python's own clients ask for it)."""
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise RoostError(
            f"{host!r} is no name that a certificate can have: {error}.",
            fix="Give the machine another name, or its address as ansible_host; of api_names_custom, leave it out.",
        ) from None


def subject_of(spec: LeafSpec) -> x509.Name:
    """Return whom a certificate names; its alternative names are what counts."""
    return _name(spec.hosts[0])


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM, not encrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key.

    Raises:
        RoostError: it is of another kind, or sealed, and the passphrase is missing or wrong.
        OSError, ValueError, TypeError: it cannot be read, or is none.
    """
    key = serialization.load_pem_private_key(read_secret(path), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RoostError(f"{path} holds no elliptic-curve key.", fix="Put back the key that Roost made.")
    return key


def _new_ca() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Roost fleet CA")
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - BACKDATE)
        .not_valid_after(_now() + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def load_authority(tls_dir: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Read the authority's certificate and key.

    Raises:
        OSError: one of them cannot be read.
    """
    return x509.load_pem_x509_certificate((tls_dir / "ca.pem").read_bytes()), load_key(tls_dir / CA_KEY)


def sign_leaf(
    spec: LeafSpec, key: ec.EllipticCurvePublicKey, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Return the certificate of a leaf for a public key."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject_of(spec))
        .issuer_name(ca.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - BACKDATE)
        .not_valid_after(min(_now() + dt.timedelta(days=LEAF_DAYS), ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(spec.hosts)), critical=False)
        .add_extension(x509.ExtendedKeyUsage(spec.usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def write_browser_bundle(
    path: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, ca: x509.Certificate
) -> None:
    """Write a certificate with its key and authority as PKCS 12, without a password, readable by its owner only."""
    bundle = pkcs12.serialize_key_and_certificates(b"roost", key, certificate, [ca], serialization.NoEncryption())
    write_atomic(path, bundle, mode=0o600)


def leaf_is_good(path: Path, spec: LeafSpec, ca: x509.Certificate) -> bool:
    """Say whether the certificate at `path` is signed by `ca`, names `spec`'s hosts, and will not expire soon.

    Its key beside it must be the certificate's own. One that ends with the authority cannot be made to last longer.
    """
    try:
        key = load_key(path.with_name(f"{path.stem}-key.pem"))
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(ca)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
    fresh = not _near_its_end(certificate) or certificate.not_valid_after_utc >= ca.not_valid_after_utc
    return fresh and key.public_key() == certificate.public_key() and list(names) == _alternative_names(spec.hosts)


def _near_its_end(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc - _now() <= dt.timedelta(days=RENEW_BEFORE_DAYS)


def wants_renewal(path: Path) -> bool:
    """Say whether the certificate at `path` is near its end, or is none at all."""
    try:
        return _near_its_end(x509.load_pem_x509_certificate(path.read_bytes()))
    except ValueError:
        return True


def renewal_due(path: Path, ca_path: Path) -> bool:
    """Say whether a run will renew the certificate at `path`; not one that is missing, nor one that ends with its CA.

    Raises:
        OSError: a file cannot be read.
    """
    if not path.exists() or not ca_path.exists():
        return False
    try:
        ca = x509.load_pem_x509_certificate(ca_path.read_bytes())
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except ValueError:
        return True
    return wants_renewal(path) and ends < ca.not_valid_after_utc


def _is_new(tls_dir: Path) -> bool:
    """Say whether the CA is to be made: nothing is there of it, or a key that never signed anything.

    The key is written before its certificate; a run that was ended in between leaves the key alone.
    """
    ca_path, ca_key_path = tls_dir / "ca.pem", tls_dir / CA_KEY
    if ca_path.exists() == ca_key_path.exists():
        return not ca_path.exists()
    missing = ca_key_path if ca_path.exists() else ca_path
    if missing == ca_path and not any(not p.stem.endswith("-key") for p in tls_dir.glob("*.pem")):
        return True
    raise RoostError(
        f"The fleet's certificate authority is incomplete: {missing} is missing.",
        fix=f"Restore {missing} from a backup; or remove the folder {tls_dir} to make a new authority.",
    )


def ensure_pki(tls_dir: Path, leaves: Sequence[LeafSpec], *, dry_run: bool = False, renew: bool = False) -> list[str]:
    """Make the CA and the named certificates where they are missing, wrong or near their end; with `renew` all of them.

    Writes `ca.pem`, `ca-key.pem`, `<name>.pem`, `<name>-key.pem`, keys with mode 0600; and `<name>.p12` beside the
    leaf called `cli`, for a browser. Returns the names of what was made, or would be with `dry_run`. A run that was
    ended at any point is completed by the next. The authority itself is not renewed: no certificate outlives it.

    Raises:
        RoostError: only one half of the CA is there, and something may depend on it.
    """
    ca_path, ca_key_path = tls_dir / "ca.pem", tls_dir / CA_KEY
    made: list[str] = []
    if not _is_new(tls_dir):
        ca, ca_key = load_authority(tls_dir)
    else:
        ca, ca_key = _new_ca()
        made.append("ca")
        if not dry_run:
            write_atomic(ca_key_path, private_pem(ca_key), mode=0o600)
            write_atomic(ca_path, ca.public_bytes(serialization.Encoding.PEM))
    for spec in leaves:
        path, key_path = tls_dir / f"{spec.name}.pem", tls_dir / f"{spec.name}-key.pem"
        bundle_path = tls_dir / "cli.p12"
        complete = spec.name != "cli" or bundle_path.exists()
        if "ca" not in made and complete and not renew and leaf_is_good(path, spec, ca):
            continue
        made.append(spec.name)
        if dry_run:
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = sign_leaf(spec, key.public_key(), ca, ca_key)
        if spec.name == "cli":
            bundle_path.unlink(missing_ok=True)  # it is written last: where it is missing all three are made again
        write_atomic(key_path, private_pem(key), mode=0o600)
        write_atomic(path, certificate.public_bytes(serialization.Encoding.PEM))
        if spec.name == "cli":
            write_browser_bundle(bundle_path, key, certificate, ca)
    return made


def _api_key() -> str:
    return f"roost-{secrets.token_urlsafe(32)}"


def _gossip_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


SECRET_MAKERS: dict[str, Callable[[], str]] = {
    "api-key": _api_key,
    "engine-key": lambda: secrets.token_urlsafe(32),
    "nomad-operator-token": lambda: str(uuid.uuid4()),
    "gossip-key": _gossip_key,
}


def ensure_secrets(secrets_dir: Path, *, dry_run: bool = False) -> list[str]:
    """Make each missing secret of `SECRET_MAKERS` as a file with mode 0600; return the names of those made."""
    missing = [name for name in SECRET_MAKERS if not (secrets_dir / name).exists()]
    if not dry_run:
        for name in missing:
            write_atomic(secrets_dir / name, SECRET_MAKERS[name]() + "\n", mode=0o600)
    return missing
