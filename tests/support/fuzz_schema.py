"""Requests that schemathesis makes of an OpenAPI document, valid and not, as bytes for a connection."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Err
from schemathesis.schemas import APIOperation

from tests.support.fuzz import Sent
from tests.support.gateway import API_KEY

QUIET = tuple(HealthCheck)


def from_document(document: Mapping[str, Any], each: int) -> list[Sent]:
    """Return `each` requests for every operation of the document."""
    schema = schemathesis.openapi.from_dict(dict(document))
    made: list[Sent] = []
    for found in schema.get_all_operations():
        if isinstance(found, Err):
            raise found.err()  # the document is no OpenAPI
        for mode in (schemathesis.GenerationMode.NEGATIVE, schemathesis.GenerationMode.POSITIVE):
            # An operation that takes anything has no wrong requests.
            with warnings.catch_warnings(), suppress(Unsatisfiable):
                warnings.simplefilter("ignore")
                _collect(found.ok(), mode, max(1, each // 2), made)
    return made


def _collect(
    operation: APIOperation[Any, Any, Any, Any], mode: schemathesis.GenerationMode, count: int, made: list[Sent]
) -> None:
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=QUIET,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def collect(case: schemathesis.Case[Any]) -> None:
        made.append(Sent("schema", as_bytes(case)))

    collect()


def as_bytes(case: schemathesis.Case[Any]) -> bytes:
    """Return what a client would send for it."""
    case.headers.update({"Authorization": f"Bearer {API_KEY}", "Connection": "close"})
    given = case.as_transport_kwargs(base_url="http://127.0.0.1")
    prepared = requests.Request(**{name: given[name] for name in given if name in ASKED}).prepare()
    body = prepared.body or b""
    assert isinstance(body, str | bytes)
    lines = [f"{prepared.method} {prepared.path_url} HTTP/1.1".encode(), b"Host: 127.0.0.1"]
    lines += [_encoded(name) + b": " + _encoded(value) for name, value in prepared.headers.items()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body.encode() if isinstance(body, str) else body)


def _encoded(text: str | bytes) -> bytes:
    return text.encode("latin-1", "replace") if isinstance(text, str) else text


ASKED = frozenset({"method", "url", "headers", "data", "json", "params", "files", "cookies"})
