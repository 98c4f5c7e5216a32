"""The semantic router: a linear classifier over hashed n-grams, read from a file of some 20 KiB.

Prediction is softmax(weights · vector / temperature); standard library only, because it runs inside the gateway.
It is trained by `roost.gateway.choice.training`, on the controller.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from array import array
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from operator import mul
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from roost.gateway.choice.decide import NO_GUESS, Guess
from roost.gateway.choice.grams import vector
from roost.gateway.secret_file import WatchedFile
from roost.ops.validation import in_words

FORMAT = 1
MOST_BUCKETS, MOST_SUBJECTS = 1 << 16, 64
SHIPPED = "shipped.router.json"
SUBJECT = r"^[a-z][a-z0-9-]{0,30}$"  # as slots are called


class Accuracy(BaseModel):
    """How a router did with examples that it was not trained on: shares of 0 to 1.

    `sure` is how often it was sure enough to be heeded, `right_when_sure` how often it was right then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: int = Field(ge=0)
    right: float = Field(ge=0, le=1)
    sure: float = Field(ge=0, le=1)
    right_when_sure: float = Field(ge=0, le=1)
    by_subject: dict[str, float] = Field(default_factory=dict)


class RouterFile(BaseModel):
    """A trained router as it is stored. `weights` are zlib-compressed signed bytes in base64, a row a bucket.

    `digest` says which examples it was trained on, `held_out` how it did with templates and fillers it had never seen,
    `natural` with requests that were not made from templates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    subjects: tuple[str, ...] = Field(min_length=2, max_length=MOST_SUBJECTS)
    buckets: int = Field(ge=2, le=MOST_BUCKETS)
    scales: tuple[float, ...]
    biases: tuple[float, ...]
    temperature: float = Field(gt=0)
    weights: str
    made: str = ""
    origin: str = ""
    digest: str = ""
    examples: int = 0
    held_out: Accuracy | None = None
    natural: Accuracy | None = None

    @model_validator(mode="after")
    def _fits(self) -> RouterFile:
        if self.format != FORMAT:
            raise ValueError(f"its format is {self.format}, this release knows {FORMAT}")
        if self.buckets & (self.buckets - 1):
            raise ValueError("buckets is no power of two")
        if not len(self.scales) == len(self.biases) == len(self.subjects) == len(set(self.subjects)):
            raise ValueError("subjects, scales and biases do not belong together")
        return self

    def text(self) -> str:
        """Return it as one line of JSON."""
        return self.model_dump_json()

    def about(self) -> dict[str, object]:
        """Return what there is to say of it, without its weights."""
        found = self.model_dump(mode="json", exclude={"weights", "scales", "biases"})
        return {**found, "bytes": len(self.text())}


class LinearRouter:
    """A router that is ready to be asked."""

    def __init__(self, file: RouterFile) -> None:
        self.file = file
        width = len(file.subjects)
        try:
            raw = zlib.decompressobj().decompress(base64.b64decode(file.weights, validate=True), MOST_BUCKETS * width)
        except (zlib.error, binascii.Error) as error:
            raise ValueError(f"its weights cannot be read: {error}") from None
        if len(raw) != file.buckets * width:
            raise ValueError("its weights have another size than it says")
        rows = array("b", raw)
        self._columns = [rows[number::width] for number in range(width)]

    def guess(self, text: str) -> Guess:
        """Return how likely each subject is."""
        file = self.file
        found = vector(text, file.buckets)
        values, buckets = list(found.values()), list(found)
        scores = [
            (bias + scale * sum(map(mul, values, map(column.__getitem__, buckets)))) / file.temperature
            for column, scale, bias in zip(self._columns, file.scales, file.biases, strict=True)
        ]
        highest = max(scores)
        shares = [math.exp(score - highest) for score in scores]
        total = sum(shares)
        return Guess(dict(zip(file.subjects, (share / total for share in shares), strict=True)))


def parse_router(text: str) -> LinearRouter:
    """Read a trained router.

    Raises:
        ValueError: it is none, or one of another format.
    """
    try:
        return LinearRouter(RouterFile.model_validate_json(text))
    except ValidationError as error:
        raise ValueError(in_words(error)) from None


@cache
def shipped() -> LinearRouter:
    """Return the router that comes with Roost."""
    return parse_router((files("roost.gateway.choice") / SHIPPED).read_text())


class WatchedRouter:
    """The router of a file, read again whenever it changes; the shipped one while that is empty or missing."""

    def __init__(self, path: Path | None, default: Callable[[], LinearRouter] = shipped) -> None:
        self._default = default()
        nothing: LinearRouter | None = None
        self._file = WatchedFile(path, _router_or_none, nothing) if path else None

    @property
    def present(self) -> LinearRouter:
        """Return the router that is used now."""
        return (self._file.value() if self._file else None) or self._default

    def guess(self, text: str) -> Guess:
        """Return how likely each subject is; a text without anything to go by has none."""
        return self.present.guess(text) if text.strip() else NO_GUESS


def _router_or_none(text: str) -> LinearRouter | None:
    return parse_router(text) if text.strip() else None
