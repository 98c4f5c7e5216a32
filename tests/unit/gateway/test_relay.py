"""What the end of a stream from a model server says."""

from __future__ import annotations

import pytest

from roost.gateway.relay import is_error


@pytest.mark.parametrize(
    ("tail", "error"),
    [
        (b'data: {"error": {"message": "out of memory"}}\n\n', True),
        (b'data: {"choices": []}\n\nevent: error\ndata: {"type": "error", "error": {}}\n\n', True),
        (b'data: {"type": "response.in_progress", "response": {"error": null}}\n\n', False),
        (b'data: {"choices": [], "error": null}\n\n', False),
        (b'data: {"error": {"message": "x"}}\n\ndata: {"choices": []}\n\n', False),
        (b"", False),
    ],
)
def test_only_an_error_is_taken_for_the_servers_last_word(tail: bytes, *, error: bool) -> None:
    assert is_error(tail) is error
