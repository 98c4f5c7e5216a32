"""What the end of a stream from a model server says."""

from __future__ import annotations

import pytest

from roost.gateway.request.relay import error_code


@pytest.mark.parametrize(
    ("tail", "error"),
    [
        (b'data: {"error": {"message": "out of memory"}}\n\n', 500),
        (b'data: {"choices": []}\n\nevent: error\ndata: {"type": "error", "error": {}}\n\n', 500),
        (b'data: {"error": {"code": 400, "message": "exceeds the context"}}\n\n', 400),
        (b'data: {"error": {"code": 503, "message": "unavailable"}}\n\n', 503),
        (b'data: {"type": "response.in_progress", "response": {"error": null}}\n\n', 0),
        (b'data: {"choices": [], "error": null}\n\n', 0),
        (b'data: {"error": {"message": "x"}}\n\ndata: {"choices": []}\n\n', 0),
        (b"", 0),
    ],
)
def test_only_an_error_is_taken_for_the_servers_last_word(tail: bytes, *, error: int) -> None:
    assert error_code(tail) == error
