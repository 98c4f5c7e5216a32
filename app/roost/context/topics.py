"""Which turns belong together: TF-IDF, cosine, and clusters that only ever grow at their end."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from roost.context.conversation import Topic

RELEVANT = 0.12
"""Cosine from which a request is taken to be about a topic."""
WORD = re.compile(r"[^\W\d_][\w-]{2,}|\d{3,}")
COMMON = frozenset(
    re.findall(
        r"\w+",
        """the and for are was were you your that this with have has had not but from they will would can could should
        what which when where who how why there here been its our out about into than then them his her she him all any
        some more also just like please thanks user assistant tool called der die das und ist nicht ein eine mit von""",
    )
)

Vector = Mapping[str, float]


def words(text: str) -> list[str]:
    """Return the words of a text that may tell it from others, in lower case."""
    return [word for word in WORD.findall(text.lower()) if word not in COMMON]


def cosine(one: Vector, other: Vector) -> float:
    """Return the cosine of two vectors, 0 to 1; 0 for an empty one."""
    if len(one) > len(other):
        one, other = other, one
    product = sum(weight * other.get(word, 0.0) for word, weight in one.items())
    lengths = math.sqrt(sum(w * w for w in one.values())) * math.sqrt(sum(w * w for w in other.values()))
    return product / lengths if lengths else 0.0


def relevant(request: str, topics: Sequence[Topic]) -> Topic | None:
    """Return the topic that a request is about: the most alike, if it is alike at all; of equals the latest."""
    asked = {word: 1.0 + math.log(count) for word, count in Counter(words(request)).items()}
    best: tuple[float, int] | None = None
    for number, topic in enumerate(topics):
        likeness = cosine(asked, topic.terms)
        if likeness >= RELEVANT and (best is None or (likeness, number) >= best):
            best = (likeness, number)
    return None if best is None else topics[best[1]]
