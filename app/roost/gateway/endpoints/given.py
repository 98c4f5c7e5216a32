"""Model servers that the settings name: pure."""

from __future__ import annotations

import re

from roost.gateway.routing import MAIN_SLOT

ADDRESS = re.compile(r"https?://[^\s/=,]+(/\S*)?")


def parse_given(text: str) -> tuple[tuple[str, str], ...]:
    """Read `URL` or `slot=URL`, separated by commas, as slots and base URLs; without a slot it is the main one.

    Raises:
        ValueError: one is no address of a server.
    """
    found = []
    for word in (part.strip() for part in text.split(",")):
        if not word:
            continue
        slot, mark, rest = word.partition("=http")
        name, url = (slot, f"http{rest}") if mark else (MAIN_SLOT, word)
        if not ADDRESS.fullmatch(url):
            raise ValueError(f"{word!r} is neither http://HOST:PORT nor SLOT=http://HOST:PORT")
        found.append((name, url.rstrip("/")))
    return tuple(found)
