"""Official releases of Nomad: the signature of their checksums, the checksum of their archive, the program in it."""

from __future__ import annotations

import base64
import binascii
import platform
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from roost.ops.errors import RoostError
from roost.ops.fetch import Fetcher
from roost.ops.files import sha256_file
from roost.ops.run import run

PROGRAM = "nomad"
FOLDER_KEY = "release-key.asc"  # name of the signing key in an offline folder
ARMOUR_BEGIN = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
ARMOUR_END = b"-----END PGP PUBLIC KEY BLOCK-----"
ARCHIVE_LIMIT = 512 << 20  # bytes; 1.11.3 has about 50 MB, unpacked about 110 MB
PROGRAM_LIMIT = 1 << 30
FINGERPRINT_DIGITS = 40
VALIDSIG_PRIMARY = 11  # field of the primary key's fingerprint in gpgv's VALIDSIG line
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
NOT_THE_VENDORS = "Do not use this download. Check the address, the proxy or mirror in between, and try again later."


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system and processor in the words of Go and of the release archives, e.g. linux and amd64."""

    os: str
    arch: str

    @classmethod
    def of_this_machine(cls) -> Self:
        """Return the platform this process runs on.

        Raises:
            RoostError: Nomad does not exist for this processor.
        """
        machine = platform.machine().lower()
        if machine not in MACHINES:
            raise RoostError(f"There is no Nomad for the processor {machine!r}.", fix="Use an x86-64 or ARM64 machine.")
        return cls(platform.system().lower(), MACHINES[machine])

    def __str__(self) -> str:
        return f"{self.os}_{self.arch}"


@dataclass(frozen=True, slots=True)
class Release:
    """One official release: its version and platform, and the primary key that must have signed it (40 hex digits)."""

    version: str
    platform: Platform
    fingerprint: str

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return f"nomad_{self.version}_{self.platform}.zip"

    @property
    def sums(self) -> str:
        """File name of the checksums; the signature's has `.sig` at its end."""
        return f"nomad_{self.version}_SHA256SUMS"


def fetch_release(
    release: Release,
    fetcher: Fetcher,
    *,
    url: str,
    key_url: str,
    partial: Path,
    work: Path,
    notify: Callable[[str], None],
) -> Path:
    """Download a release and return the verified program, a new file in `work`.

    `partial` is where the archive grows; it stays there when the download breaks, and goes when all is done.

    Raises:
        RoostError: a file cannot be had, or signature, key or checksum is not what it must be.
    """
    base = f"{url.rstrip('/')}/{release.version}"
    notify(f"Looking for Nomad {release.version} at {base}")
    sums = fetcher.small(f"{base}/{release.sums}")
    signature = fetcher.small(f"{base}/{release.sums}.sig")
    key = fetcher.small(key_url)
    digest = signed_digest(release, sums=sums, signature=signature, key=key, work=work)
    partial.parent.mkdir(parents=True, exist_ok=True)
    resumed = partial.exists()
    archive_url = f"{base}/{release.archive}"
    notify(f"Downloading {archive_url}")
    fetcher.file(archive_url, partial, limit=ARCHIVE_LIMIT, notify=notify)
    if resumed and sha256_file(partial) != digest:
        notify("What an earlier download left does not fit; downloading again from the start")
        partial.unlink()
        fetcher.file(archive_url, partial, limit=ARCHIVE_LIMIT, notify=notify)
    try:
        return unpack(partial, digest, work / PROGRAM)
    finally:
        partial.unlink(missing_ok=True)  # whole: either unpacked now, or wrong


def release_in_folder(release: Release, folder: Path, work: Path) -> Path:
    """Verify the release files in a folder as those of a server, and return the program, a new file in `work`.

    Raises:
        RoostError: a file is missing, or signature, key or checksum is not what it must be.
    """
    content: dict[str, bytes] = {}
    for name in (release.sums, f"{release.sums}.sig", FOLDER_KEY):
        try:
            content[name] = (folder / name).read_bytes()
        except OSError as error:
            raise RoostError(
                f"{folder / name} cannot be read: {error.strerror}.",
                fix=f"Put {release.sums}, its .sig and the vendor's key as {FOLDER_KEY} beside {release.archive}.",
            ) from error
    digest = signed_digest(
        release,
        sums=content[release.sums],
        signature=content[f"{release.sums}.sig"],
        key=content[FOLDER_KEY],
        work=work,
    )
    return unpack(folder / release.archive, digest, work / PROGRAM)


def signed_digest(release: Release, *, sums: bytes, signature: bytes, key: bytes, work: Path) -> str:
    """Return the SHA-256 that the signed checksums name for the release's archive.

    Raises:
        RoostError: the signature is not a valid one of the pinned key, or the archive is not listed.
    """
    check_signature(data=sums, signature=signature, key=key, fingerprint=release.fingerprint, work=work)
    for line in sums.decode("ascii", "replace").splitlines():
        words = line.split()
        if words[1:] in ([release.archive], [f"*{release.archive}"]):
            return words[0].lower()
    raise RoostError(
        f"{release.sums} does not list {release.archive}.",
        fix="Check that this version exists for this operating system and processor.",
    )


def check_signature(*, data: bytes, signature: bytes, key: bytes, fingerprint: str, work: Path) -> None:
    """Check a detached signature with gpgv; it must come from the primary key `fingerprint` or a subkey of it.

    Raises:
        RoostError: gpgv is missing, the fingerprint is none, or the signature is not a valid one of that key.
    """
    pinned = "".join(fingerprint.split()).upper()
    if len(pinned) != FINGERPRINT_DIGITS or not set(pinned) <= set("0123456789ABCDEF"):
        raise RoostError(
            f"{fingerprint!r} is not a fingerprint of 40 hex digits.", fix="Set nomad_release_key_fingerprint."
        )
    files = {"key.gpg": dearmour(key), "data": data, "data.sig": signature}
    for name, content in files.items():
        (work / name).write_bytes(content)
    try:
        status = run(
            [
                "gpgv",
                "--homedir",
                work,
                "--keyring",
                work / "key.gpg",
                "--status-fd",
                "1",
                work / "data.sig",
                work / "data",
            ],
            fix="Install the package gpgv (apt-get install gpgv).",
        )
    except RoostError as error:
        if "failed with exit code" not in error.message:
            raise
        raise RoostError(_bad_signature(error.message, pinned), fix=NOT_THE_VENDORS) from error
    finally:
        for name in files:
            (work / name).unlink()
    fields = [line.split()[1:] for line in status.splitlines() if line.startswith("[GNUPG:] ")]
    signers = {words[VALIDSIG_PRIMARY - 1] for words in fields if words[0] == "VALIDSIG"}
    if pinned not in signers:
        raise RoostError(
            f"The checksums are signed by {', '.join(sorted(signers)) or 'nobody'}, not by the pinned key {pinned}.",
            fix=NOT_THE_VENDORS,
        )


def _bad_signature(output: str, pinned: str) -> str:
    if "BADSIG" in output:
        return "The signature does not fit the checksums: one of the two was changed."
    if "NO_PUBKEY" in output:
        return f"The checksums are signed by a key that is not in the vendor's key file (pinned: {pinned})."
    return f"The signature of the checksums cannot be verified: {output}"


def dearmour(key: bytes) -> bytes:
    """Return a public key in binary form; one that is binary already is returned as it is.

    Raises:
        RoostError: the armour is damaged.
    """
    if ARMOUR_BEGIN not in key:
        return key
    # Anything else in the file, such as a page around the key, is left out.
    block = key.split(ARMOUR_BEGIN, 1)[1].split(ARMOUR_END, 1)[0]
    _, _, body = block.replace(b"\r", b"").partition(b"\n\n")
    lines = [line for line in body.splitlines() if not line.startswith(b"=")]  # "=" starts the armour's CRC
    try:
        return base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error as error:
        raise RoostError(f"The vendor's key file is damaged: {error}.", fix=NOT_THE_VENDORS) from error


def unpack(archive: Path, digest: str, target: Path) -> Path:
    """Take the program out of an archive whose SHA-256 must be `digest`; return `target`, executable.

    Raises:
        RoostError: the checksum differs, or the archive holds no program.
    """
    found = sha256_file(archive)
    if found != digest:
        raise RoostError(
            f"{archive.name} has the SHA-256 {found}; the signed checksums say {digest}.", fix=NOT_THE_VENDORS
        )
    try:
        with zipfile.ZipFile(archive) as bundle:
            if bundle.getinfo(PROGRAM).file_size > PROGRAM_LIMIT:
                raise RoostError(f"The program in {archive.name} is larger than 1 GiB.", fix=NOT_THE_VENDORS)
            with bundle.open(PROGRAM) as packed, target.open("wb") as stream:
                shutil.copyfileobj(packed, stream, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise RoostError(f"{archive.name} holds no program {PROGRAM!r}: {error}.", fix=NOT_THE_VENDORS) from error
    target.chmod(0o755)
    return target
