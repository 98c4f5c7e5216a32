"""From what a user names (a file, an address, a repository) to a model that can be added: effects around `custom`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from roost.models.custom import Added, choose_file, choose_projector, entry_of
from roost.models.gguf_header import Header
from roost.models.gguf_read import header_of_file, header_of_url
from roost.models.schema import SPLIT, ListedDownload, ListedFile, Role
from roost.models.source_types import HubSource, PathSource, Source, UrlSource
from roost.ops.errors import RoostError
from roost.ops.fetch import Fetcher
from roost.ops.files import sha256_file
from roost.ops.validation import in_words

HF = "hf:"
UNKNOWN = "0" * 64  # the schema wants a hash; where none is known the entry is shown without it
ADDRESS = re.compile(r"^https?://")
HUB_PATH = re.compile(r"^/(?P<repository>[^/]+/[^/]+)/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<file>.+\.gguf)$")
SAFE_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Wanted:
    """What a user wants to add. `roles` None: guess them. `sha256` is that of the file at an address, if known."""

    what: str
    name: str = ""
    roles: Mapping[Role, int] | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Reach:
    """How files are reached: a company's CA, a folder for downloads, lines for the user."""

    cache_dir: Path
    extra_ca: Path | None = None
    notify: Callable[[str], None] = lambda _line: None


def look_at(wanted: Wanted, reach: Reach, *, dry_run: bool = False) -> Added:
    """Read the header of what is named, without downloading it, and return the entry.

    Of a file at an address whose hash nobody says, the hash can only be had by downloading it; with `dry_run` the entry
    is without it, so it can be shown, not kept.

    Raises:
        RoostError: it cannot be read or reached, or holds no model that can be served.
    """
    try:
        if wanted.what.startswith(HF):
            return _of_repository(wanted, reach)
        if ADDRESS.match(wanted.what):
            return _of_address(wanted, reach, dry_run=dry_run)
        return _of_file(wanted)
    except ValidationError as error:
        raise RoostError(
            f"{wanted.what} cannot be written as an entry: {in_words(error)}.",
            fix="Give its name with --name, or write the entry into models_custom yourself.",
        ) from error


def _of_file(wanted: Wanted) -> Added:
    path = Path(wanted.what).expanduser().absolute()
    if not path.is_file():
        raise RoostError(f"There is no file {path}.", fix="Name a GGUF file, an address, or hf:OWNER/NAME[:QUANT].")
    if SPLIT.search(path.name):
        raise RoostError(
            f"{path.name} is the first of several files.",
            fix="Join them with `llama-gguf-split --merge`, or add the model from its repository: hf:OWNER/NAME:QUANT.",
        )
    header = header_of_file(path)
    sha256 = wanted.sha256 or sha256_file(path)
    file = ListedFile(name=_safe(path.name), bytes=path.stat().st_size, sha256=sha256)
    return entry_of(header, _download(file, PathSource(kind="path", path=path)), name=wanted.name, roles=wanted.roles)


def _of_address(wanted: Wanted, reach: Reach, *, dry_run: bool) -> Added:
    from roost.models.hub import default_hub  # takes a second

    hub = default_hub(reach.extra_ca, reach.notify)
    parts = urlsplit(wanted.what)
    on_hub = HUB_PATH.match(unquote(parts.path)) if parts.netloc == urlsplit(hub.endpoint).netloc else None
    if on_hub is not None:
        return _of_hub_file(HubSource(kind="hub", **on_hub.groupdict()), "", wanted, reach)
    name = _safe(unquote(parts.path).rpartition("/")[2]) or "model.gguf"
    fetcher = Fetcher(reach.extra_ca)
    header = header_of_url(wanted.what, fetcher)
    _, size = fetcher.part(wanted.what, 0, 1)
    if not size:
        raise RoostError(f"{wanted.what} does not say its size.", fix="Download the file and add it by its path.")
    at = UrlSource(kind="url", url=wanted.what)
    unknown = dry_run and not wanted.sha256
    sha256 = UNKNOWN if unknown else wanted.sha256 or _download_for_hash(wanted.what, size, fetcher, reach)
    download = _download(ListedFile(name=name, bytes=size, sha256=sha256), at)
    added = entry_of(header, download, name=wanted.name, roles=wanted.roles)
    if not unknown:
        return added
    shown = download.model_copy(update={"file": ListedFile(name=name, bytes=size)})
    return replace(added, entry=added.entry.model_copy(update={"quantisations": {added.quantisation: shown}}))


def _download_for_hash(url: str, size: int, fetcher: Fetcher, reach: Reach) -> str:
    """Download a file into the cache, going on where an earlier run stopped; return its hash. `pull` finds it there."""
    folder = reach.cache_dir / "models"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{hashlib.sha256(url.encode()).hexdigest()}.part"
    reach.notify("Nobody says its hash, so the file is downloaded now; with --sha256 it is fetched when it is needed")
    if not partial.exists() or partial.stat().st_size != size:
        fetcher.file(url, partial, limit=size, notify=reach.notify)
    sha256 = sha256_file(partial)
    partial.chmod(0o444)
    partial.replace(folder / sha256)
    return sha256


def _of_repository(wanted: Wanted, reach: Reach) -> Added:
    from roost.models.hub import default_hub, list_files

    repository, _, quantisation = wanted.what.removeprefix(HF).partition(":")
    try:
        source = HubSource(kind="hub", repository=repository, file="x")
    except ValidationError:
        raise RoostError(
            f"{wanted.what!r} is not hf:OWNER/NAME[:QUANT].",
            fix="For example hf:Qwen/Qwen3-8B-GGUF:Q4_K_M.",
            exit_code=2,
        ) from None
    files = list_files(source, default_hub(reach.extra_ca, reach.notify))
    chosen = _with_file(source, choose_file(files, quantisation))
    return _of_hub_file(chosen, choose_projector(files), wanted, reach)


def _with_file(source: HubSource, file: str) -> HubSource:
    """Return a source with a file's name as the hub says it: it is checked, as one that a user writes.

    Raises:
        ValidationError: the schema does not allow such a name.
    """
    return HubSource.model_validate({**source.model_dump(), "file": file})


def _of_hub_file(source: HubSource, projector: str, wanted: Wanted, reach: Reach) -> Added:
    from roost.models.hub import ask, default_hub

    hub = default_hub(reach.extra_ca, reach.notify)
    header: Header = header_of_url(ask(source, hub).url, Fetcher(reach.extra_ca, hub.token))
    file = ListedFile(name=_safe(source.file.rpartition("/")[2]), sha256=wanted.sha256 or None)
    beside = None
    if projector:
        named = _safe(f"{source.repository.partition('/')[2]}-{projector.rpartition('/')[2]}")
        beside = _download(ListedFile(name=named), _with_file(source, projector))
    return entry_of(header, _download(file, source), name=wanted.name, roles=wanted.roles, projector=beside)


def _download(file: ListedFile, source: Source) -> ListedDownload:
    return ListedDownload(file=file, sources=[source])


def _safe(name: str) -> str:
    return SAFE_NAME.sub("-", name).lstrip("._-")
