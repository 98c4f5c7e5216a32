"""What a model hub says of a file, through `huggingface_hub`. The only module that imports it.

The protocol: HEAD of `ENDPOINT/REPOSITORY/resolve/REVISION/FILE` answers, on the hub's own redirect to its storage,
`X-Repo-Commit`, `X-Linked-Size` and `X-Linked-Etag`; for large files the latter is their SHA-256. Refusals carry
`X-Error-Code`. The bytes are fetched by `roost.ops.fetch`, see docs/decisions/0005-hub-downloads.md.
"""

from __future__ import annotations

import os
import random
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import (
    HfApi,
    HfFileMetadata,
    constants,
    get_hf_file_metadata,
    get_token,
    hf_hub_url,
    set_client_factory,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from roost.models.lock_file import SHA256_HEX, Locked, add_lock, read_locks
from roost.models.schema import Download, ListedDownload, find_lock, locked
from roost.models.source_types import HubSource
from roost.ops.errors import RoostError
from roost.ops.fetch import CHECK_NETWORK, FRUITLESS_ATTEMPTS
from roost.ops.retry import RETRY_STATUSES, asked_wait_s, wait_s

ASK_TIMEOUT_S = 20.0
T = TypeVar("T")
LOGIN = "give its token: HF_TOKEN=..., or a file made by `hf auth login`"


@dataclass(frozen=True)
class Hub:
    """A hub as this process reaches it; by default the one that HF_ENDPOINT names, with the user's token."""

    endpoint: str
    token: str
    extra_ca: Path | None = None
    notify: Callable[[str], None] = lambda _line: None
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


@dataclass(frozen=True)
class HubFile:
    """A file at one commit: where its bytes are, size in bytes, SHA-256 (empty where the hub does not say)."""

    url: str
    commit: str
    bytes: int
    sha256: str


def default_hub(extra_ca: Path | None = None, notify: Callable[[str], None] = lambda _line: None) -> Hub:
    """Return the hub of the environment: HF_ENDPOINT, and HF_TOKEN or the token's file."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT
    return Hub(endpoint, get_token() or "", extra_ca, notify)


def ask(source: HubSource, hub: Hub) -> HubFile:
    """Return what the hub has under the source's revision; asks again where it refuses for now.

    Raises:
        RoostError: it does not have it, does not give it to this user, or cannot be reached.
    """
    url = hf_hub_url(source.repository, source.file, revision=source.revision, endpoint=hub.endpoint)

    def metadata() -> HfFileMetadata:
        return get_hf_file_metadata(url, token=hub.token or False, timeout=ASK_TIMEOUT_S, endpoint=hub.endpoint)

    found = _answer(metadata, source, hub)
    if not found.commit_hash or not found.size:
        raise RoostError(
            f"{hub.endpoint} does not answer as a model hub does.", fix="Correct HF_ENDPOINT, or unset it."
        )
    at_commit = hf_hub_url(source.repository, source.file, revision=found.commit_hash, endpoint=hub.endpoint)
    sha256 = found.etag if found.etag and re.match(SHA256_HEX, found.etag) else ""
    return HubFile(at_commit, found.commit_hash, found.size, sha256)


def list_files(source: HubSource, hub: Hub) -> list[str]:
    """Return the names of all files in the source's repository; its `file` does not matter.

    Raises:
        RoostError: as for `ask`.
    """
    api = HfApi(endpoint=hub.endpoint, token=hub.token or False)

    def names() -> list[str]:
        info = api.model_info(source.repository, revision=source.revision, timeout=ASK_TIMEOUT_S)
        return [file.rfilename for file in info.siblings or ()]

    return _answer(names, source, hub)


def _answer(request: Callable[[], T], source: HubSource, hub: Hub) -> T:
    """Ask until there is an answer, or a refusal that will stay."""
    if hub.extra_ca is not None:
        set_client_factory(partial(httpx2.Client, verify=_trust(hub.extra_ca), timeout=None))
    for attempt in count(1):
        try:
            return request()
        except HfHubHTTPError as error:
            status = error.response.status_code
            asked = asked_wait_s(_titled(error.response.headers), datetime.now(UTC))
            delay = wait_s(attempt, asked, hub.chance()) if status in RETRY_STATUSES else None
            if delay is None:
                raise explain(source, hub, status, error) from error
            said = f"answered {status}"
        except OfflineModeIsEnabled as error:
            raise RoostError("HF_HUB_OFFLINE forbids to ask the model hub.", fix="Unset it.") from error
        except httpx2.HTTPError as error:
            delay = None if isinstance(error, httpx2.ConnectError) else wait_s(attempt, 0.0, hub.chance())
            if delay is None or attempt >= FRUITLESS_ATTEMPTS:
                raise RoostError(f"{hub.endpoint} could not be reached: {error}.", fix=CHECK_NETWORK) from error
            said = f"did not answer: {error}"
        hub.notify(f"The hub {said}; asking again in {delay:.0f} s")
        hub.sleep(delay)
    raise AssertionError(source)  # count does not end


def _titled(headers: httpx2.Headers) -> dict[str, str]:
    """Return the headers that ask to wait, under their usual names."""
    return {name: headers[name] for name in ("Retry-After", "RateLimit") if name in headers}


def explain(source: HubSource, hub: Hub, status: int, error: Exception) -> RoostError:
    """Return what a refusal of the hub means, and what to do."""
    page = f"{hub.endpoint}/{source.repository}"
    if isinstance(error, GatedRepoError):
        known = "the account of your token has no access" if hub.token else "no token was given"
        return RoostError(
            f"{source.repository} is gated, and {known}.",
            fix=f"Accept the licence on {page} with an account of the hub, then {LOGIN}.",
        )
    if isinstance(error, RepositoryNotFoundError):
        return RoostError(
            f"The hub has no repository {source.repository}, or it is private.",
            fix=f"Look at {page}; if it is private, {LOGIN}.",
        )
    if isinstance(error, RevisionNotFoundError):
        return RoostError(
            f"{source.repository} has no revision {source.revision}.",
            fix=f"Correct the catalogue; or if it was locked, remove its entry from the lock file. See {page}.",
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return RoostError(
            f"{source.repository} has no file {source.file} at revision {source.revision}.",
            fix=f"Take one of those listed on {page}/tree/{source.revision}.",
        )
    return refused(source, hub, status)


def refused(source: HubSource, hub: Hub, status: int, code: str = "") -> RoostError:
    """Return what a plain HTTP refusal means; `code` is the hub's X-Error-Code."""
    page = f"{hub.endpoint}/{source.repository}"
    if status in {401, 403}:
        what = "is gated" if code == "GatedRepo" else f"was refused (HTTP {status})"
        return RoostError(
            f"{source.repository} {what}.",
            fix=f"See that the licence on {page} is accepted, then {LOGIN} (a valid one, with the right to read).",
        )
    return RoostError(f"The hub answered {status} for {source.repository}.", fix="Try again later.")


def _trust(extra_ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=extra_ca)
    except OSError as error:
        raise RoostError(
            f"extra_ca_bundle {extra_ca} cannot be used: {error}.", fix="Name a readable PEM file."
        ) from error
    return context


def lock_download(name: str, download: ListedDownload, lock: Path, hub: Hub) -> Download:
    """Return a download with the file that the lock names; without an entry, what the hub has now is locked.

    `name` is that of the entry: `NAME:QUANT`, `NAME:projector` or `NAME:adapter:ADAPTER`.

    Raises:
        RoostError: no hub of its sources has the file or says its hash, or the lock cannot be written.
    """
    entry = find_lock(read_locks(lock), name, download)
    return locked(download, entry or add_lock(lock, name, _first_answer(name, download, hub)))


def _first_answer(name: str, download: ListedDownload, hub: Hub) -> Locked:
    failures: list[RoostError] = []
    wanted = download.file.sha256
    for source in download.hub_sources:
        try:
            found = ask(source, hub)
        except RoostError as error:
            failures.append(error)
            continue
        if found.sha256 and wanted in (None, found.sha256):
            return Locked(
                repository=source.repository, revision=source.revision, file=source.file,
                commit=found.commit, bytes=found.bytes, sha256=found.sha256,
            )  # fmt: skip
        if found.sha256:
            failures.append(RoostError(
                f"The hub has another {source}: sha256 {found.sha256}, the catalogue wants {wanted}.",
                fix="If the new one is meant, correct file.sha256 in the catalogue.",
            ))  # fmt: skip
            continue
        failures.append(RoostError(
            f"The hub gives no SHA-256 of {source}.", fix="Write file.bytes and file.sha256 into the catalogue."
        ))  # fmt: skip
    reasons = " ".join(error.message for error in failures)
    raise RoostError(f"The file of {name} is not known: {reasons}", fix=failures[0].fix)


def why_silent(source: HubSource, hub: Hub) -> str:
    """Return why the hub cannot be used now, empty if it answers; asked about one file, once, whether it has it or not.

    A hub that refuses this file (gated, private, gone) answers.
    """

    def no_patience(_seconds: float) -> None:
        raise RoostError(f"{hub.endpoint} does not answer for now.", fix="Try again later.")

    try:
        ask(source, replace(hub, sleep=no_patience, notify=lambda _line: None))
    except RoostError as error:
        # a refusal with the protocol's code is the hub's own word, one without it may be a proxy's
        said = error.__cause__.response.headers if isinstance(error.__cause__, HfHubHTTPError) else {}
        return "" if "X-Error-Code" in said else error.message
    return ""
