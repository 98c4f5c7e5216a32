"""Trace contexts: the header of W3C, sampling, and ids."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.gateway.observe.context import begin, is_sampled, new_span_id, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEX = "0123456789abcdef"


def hex_of(length: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=length, max_size=length)


@given(hex_of(32), hex_of(16), st.integers(0, 255))
def test_a_valid_header_is_read_and_written_again(trace_id: str, span: str, flags: int) -> None:
    found = parse_traceparent(f"00-{trace_id}-{span}-{flags:02x}")
    if not trace_id.strip("0") or not span.strip("0"):
        assert found is None
        return
    assert found is not None
    assert (found.trace_id, found.parent, found.sampled, found.given) == (trace_id, span, bool(flags & 1), True)
    assert found.header(span) == f"00-{trace_id}-{span}-{flags & 1:02x}"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\r\nx: y",
    ],
)
def test_what_is_not_valid_begins_a_new_trace(header: str) -> None:
    assert parse_traceparent(header) is None
    request_id = uuid.uuid4().hex
    trace = begin(header, request_id, 1.0)
    assert (trace.trace_id, trace.parent, trace.sampled, trace.given) == (request_id, "", True, False)


def test_a_later_version_may_say_more() -> None:
    assert parse_traceparent(f"01-{TRACE}-{SPAN}-01-more") is not None


@given(st.text(max_size=80))
def test_any_header_is_survived(header: str) -> None:
    trace = begin(header, "a client's own id", 0.5)
    assert len(trace.trace_id) == 32
    assert int(trace.trace_id, 16)


def test_the_sender_decides_on_sampling_and_who_has_tracing_off_samples_nothing() -> None:
    for flag, ratio, sampled in (("01", 0.001, True), ("00", 1.0, False), ("01", 0.0, False)):
        trace = begin(f"00-{TRACE}-{SPAN}-{flag}", "r", ratio)
        assert (trace.trace_id, trace.parent, trace.sampled) == (TRACE, SPAN, sampled)


def test_a_share_of_new_traces_is_sampled() -> None:
    ids = [uuid.uuid4().hex for _ in range(4000)]
    assert not any(is_sampled(trace_id, 0.0) for trace_id in ids)
    assert all(is_sampled(trace_id, 1.0) for trace_id in ids)
    # 4,000 draws at 1/4: the standard deviation is 27
    assert 850 < sum(is_sampled(trace_id, 0.25) for trace_id in ids) < 1150
    quarter = {trace_id for trace_id in ids if is_sampled(trace_id, 0.25)}
    assert quarter <= {trace_id for trace_id in ids if is_sampled(trace_id, 0.5)}


def test_ids_of_spans_are_not_repeated() -> None:
    assert len({new_span_id() for _ in range(1000)}) == 1000
