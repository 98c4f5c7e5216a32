"""Which turns belong together: TF-IDF, cosine, and clusters that only ever grow at their end."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from roost.context.conversation import Topic

JOIN = 0.2
"""Cosine from which a turn belongs to a cluster that there is already."""
SMALL_SHARE = 2 / 3
"""A cluster below this share of its bound takes the next turn whatever it is about: topics of one turn help nobody."""
TERMS = 24
"""Words kept of a topic to find it by."""
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


def vectors(texts: Sequence[str]) -> list[dict[str, float]]:
    """Return each text as TF-IDF among all of them: (1 + ln tf) · (1 + ln(n / df)).

    The smoothed form, in which a word of every text still counts a little, as in Manning, Raghavan, Schütze,
    Introduction to Information Retrieval, section 6.4.
    """
    counted = [Counter(words(text)) for text in texts]
    frequency = Counter(word for counts in counted for word in counts)
    return [
        {
            word: (1.0 + math.log(count)) * (1.0 + math.log(len(texts) / frequency[word]))
            for word, count in counts.items()
        }
        for counts in counted
    ]


def strongest(vector: Vector, most: int = TERMS) -> dict[str, float]:
    """Return the heaviest words of a vector, heaviest first."""
    ordered = sorted(vector.items(), key=lambda item: (-item[1], item[0]))
    return {word: round(weight, 3) for word, weight in ordered[:most]}


def clusters(texts: Sequence[str], tokens: Sequence[int], most: int) -> list[list[int]]:
    """Return which texts belong together, by their indices: each once, ordered inside a cluster and by its first.

    A cluster has at most `most` tokens, unless one text alone has more.
    """
    made: list[list[int]] = []
    sums: list[dict[str, float]] = []
    sizes: list[int] = []
    for number, vector in enumerate(vectors(texts)):
        room = [at for at in range(len(made)) if sizes[at] + tokens[number] <= most]
        best = max(room, key=lambda at: (cosine(vector, sums[at]), at), default=None)
        if best is not None and cosine(vector, sums[best]) < JOIN:
            last = len(made) - 1
            best = last if last in room and sizes[last] < SMALL_SHARE * most else None
        if best is None:
            made.append([])
            sums.append({})
            sizes.append(0)
            best = len(made) - 1
        made[best].append(number)
        sizes[best] += tokens[number]
        for word, weight in vector.items():
            sums[best][word] = sums[best].get(word, 0.0) + weight
    return made


def relevant(request: str, topics: Sequence[Topic]) -> Topic | None:
    """Return the topic that a request is about: the most alike, if it is alike at all; of equals the latest."""
    asked = {word: 1.0 + math.log(count) for word, count in Counter(words(request)).items()}
    best: tuple[float, int] | None = None
    for number, topic in enumerate(topics):
        if asked.keys().isdisjoint(topic.terms):
            continue
        likeness = cosine(asked, topic.terms)
        if likeness >= RELEVANT and (best is None or (likeness, number) >= best):
            best = (likeness, number)
    return None if best is None else topics[best[1]]
