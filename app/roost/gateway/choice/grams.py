"""A text as a sparse vector: hashed words, pairs of words, and pieces of words. Pure, standard library only.

The same function serves the gateway and the training, so that both see the same; a change of it makes files that were
trained before useless, and needs another `FORMAT` in `roost.gateway.choice.semantic`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from zlib import crc32

HEAD_CHARS, TAIL_CHARS = 450, 250  # of a long text: what is asked stands before or behind what it is asked of
TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
ADDRESS = re.compile(r"\bhttps?://\S+")
FILE = re.compile(r"(?:^|\s)(?:~|\.{0,2}/[\w.-]|[\w-]+\.(?:txt|md|pdf|log|csv|json|ya?ml|xlsx?|docx?|zip|conf|ini)\b)")
CALL = re.compile(r"\w\(|\w\[|[;{]\s*(?:\n|$)|=>|->|::|==|```")
WRITTEN_WITHOUT_BLANKS = "\u2e80"  # from here on: Chinese, Japanese …; there pieces of two characters are words
EDGE = 6  # words at the beginning and at the end, where instructions stand
PIECES = (3, 4)  # characters
LENGTHS = (40, 150, 400, 1000)  # characters


def clipped(text: str) -> str:
    """Return the part of a text that is looked at."""
    if len(text) <= HEAD_CHARS + TAIL_CHARS:
        return text
    return f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"


def vector(text: str, buckets: int) -> dict[int, float]:
    """Return bucket -> weight of what a text has, of length 1; `buckets` is a power of two.

    A weight is 1 + ln(count) before that, so that a word repeated is not that many words.
    """
    counts = Counter(crc32(gram.encode("utf-8", "replace")) & (buckets - 1) for gram in _grams(text))
    weights = {bucket: 1.0 + math.log(count) for bucket, count in counts.items()}
    norm = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
    return {bucket: weight / norm for bucket, weight in weights.items()}


def _grams(text: str) -> Iterator[str]:
    looked_at = clipped(text)
    words: list[str] = []
    for token in TOKEN.findall(looked_at.lower()):
        if token[0].isdigit():
            yield "0"
        elif token[0].isalpha():
            words.append(token)
        else:
            yield f"p{token}"
    yield f"first {' '.join(words[:2])}"
    for place, ends in (("first", words[:EDGE]), ("last", words[-EDGE:])):
        for word in ends:
            yield f"{place} {word}"
    before = ""
    for word in words:
        yield f"w{word}"
        yield f"b{before} {word}"
        before = word
        yield from _pieces(word)
    yield from _shape(text, looked_at)


def _pieces(word: str) -> Iterator[str]:
    if word[0] >= WRITTEN_WITHOUT_BLANKS:
        for size in (1, 2, 3):
            for at in range(len(word) - size + 1):
                yield f"c{word[at : at + size]}"
        return
    whole = f"<{word[:24]}>"
    for size in PIECES:
        for at in range(len(whole) - size + 1):
            yield f"c{whole[at : at + size]}"


def _shape(text: str, looked_at: str) -> Iterator[str]:
    yield f"length {sum(len(text) >= least for least in LENGTHS)}"
    if ADDRESS.search(looked_at):
        yield "has address"
    if FILE.search(looked_at):
        yield "has file"
    calls = len(CALL.findall(looked_at))
    if calls:
        yield "has code"
    if calls > 2:
        yield "has much code"
