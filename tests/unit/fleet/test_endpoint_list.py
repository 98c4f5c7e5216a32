"""Endpoints added by hand as data: what is allowed, and the changes of their document."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.endpoint_list import (
    Drain,
    EndpointDocument,
    HandEndpoint,
    checked_url,
    made_endpoint,
    parse_document,
    with_drain,
    with_endpoint,
    without_drain,
    without_endpoint,
)
from roost.ops.errors import RoostError

SECRET = "sk-secret-0123456789"
NAMES = st.sampled_from(["a", "b", "c", "d"])
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "drain", "undrain"]), NAMES), max_size=30)


def endpoint(**fields: object) -> HandEndpoint:
    return made_endpoint({"name": "box", "url": "https://box", "engine": "vllm", **fields})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("http://127.0.0.1:1234/", "http://127.0.0.1:1234"),
        ("http://localhost:1234/v1", "http://localhost:1234"),
        ("http://[::1]:1234/v1/", "http://[::1]:1234"),
        ("https://Box.example.org/openai/v1", "https://box.example.org/openai"),
        (" https://box ", "https://box"),
    ],
)
def test_a_url_is_written_in_one_way(given: str, found: str) -> None:
    assert checked_url(given, allow_http=False) == found


@pytest.mark.parametrize(
    "url",
    ["", "box", "http://", "http://192.0.2.7", "http://box:99999", "http://0.0.0.0:1", "http://[fe80::1]:1", "file:///x",
     "https://a b", "https://u:p@box", "https://box?x=1", "https://box#x", "http://localhost.example.org"],
)  # fmt: skip
def test_what_is_no_safe_url_is_refused(url: str) -> None:
    with pytest.raises(RoostError):
        checked_url(url, allow_http=False)


def test_http_beyond_this_machine_needs_consent() -> None:
    assert endpoint(url="http://192.0.2.7:1", allow_http=True).url == "http://192.0.2.7:1"


def test_a_cloud_is_used_by_name_unless_somebody_says_otherwise() -> None:
    assert endpoint().auto
    assert not endpoint(engine="anthropic").auto
    assert endpoint(engine="openai", auto=True, slot="main").slot == "main"
    with pytest.raises(RoostError, match="did not ask for it"):
        endpoint(engine="openai", slot="main")


def test_a_key_is_in_the_document_and_nowhere_else() -> None:
    made = endpoint(key=SECRET)
    document = with_endpoint(EndpointDocument(), made)
    assert SECRET in document.text()
    assert parse_document(document.text()) == document
    assert SECRET not in f"{made!r} {made} {document!r} {json.dumps(made.shown())}"
    assert made.shown()["key"] is True


@given(STEPS)
def test_any_order_of_changes_keeps_names_single_and_counts_up(steps: list[tuple[str, str]]) -> None:
    document = EndpointDocument()
    for verb, name in steps:
        before = document
        try:
            if verb == "add":
                document = with_endpoint(document, endpoint(name=name), replace=True)
            elif verb == "remove":
                document = without_endpoint(document, name)
            elif verb == "drain":
                document = with_drain(document, Drain(endpoint=name))
            else:
                document = without_drain(document, name)
        except RoostError:
            assert verb == "remove"
            continue
        assert (document == before) == (document.revision == before.revision)
        assert document.revision - before.revision in (0, 1)
        for names in ([e.name for e in document.endpoints], [d.endpoint for d in document.drains]):
            assert len(names) == len(set(names))
    assert parse_document(document.text()) == document


def test_removing_an_endpoint_ends_its_drain() -> None:
    document = with_drain(with_endpoint(EndpointDocument(), endpoint()), Drain(endpoint="box"))
    assert with_drain(document, Drain(endpoint="box")) is document
    assert not without_endpoint(document, "box").drains
    with pytest.raises(RoostError, match="There is an endpoint"):
        with_endpoint(document, endpoint())


@pytest.mark.parametrize(
    "text",
    [
        '{"endpoints": [{"name": "a", "url": "http://127.0.0.1:1", "engine": "openai", "key": ["sk-secret"]}]}',
        '{"endpoints": [{"key": "sk-secret',
        '{"endpoints": "sk-secret"}',
    ],
)
def test_what_is_wrong_in_a_document_is_said_without_its_keys(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # its text is what is looked at
        parse_document(text)
    assert "sk-secret" not in str(caught.value)
    assert str(caught.value)


@pytest.mark.parametrize(
    "host", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662", "[::ffff:169.254.169.254]"]
)
def test_no_other_form_of_an_address_leads_to_a_clouds_metadata(host: str) -> None:
    with pytest.raises(RoostError):
        checked_url(f"http://{host}/", allow_http=True)


def test_a_password_is_not_repeated_whatever_else_is_wrong() -> None:
    with pytest.raises(RoostError) as caught:
        checked_url("http://me:sesame@host:99999", allow_http=True)
    assert "sesame" not in str(caught.value)
