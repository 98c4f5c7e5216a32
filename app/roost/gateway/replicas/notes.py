"""What one replica of the gateway tells another: pure, and the form in which it travels."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roost.gateway.account.limits import Count
from roost.gateway.account.usage import SUM_FIELDS, Group
from roost.ops.validation import in_words

MOST_ROWS = 500
MOST_BYTES = 4 << 20
NAME = 200

Amount = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Row(BaseModel):
    """Usage of one day, key and model, as a replica has counted it for itself; a higher version is newer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    replica: Id
    version: int = Field(ge=0)
    day: str = Field(max_length=10)
    key: str = Field(max_length=NAME)
    model: str = Field(max_length=4 * NAME)
    sums: tuple[Amount, ...] = Field(min_length=len(SUM_FIELDS), max_length=len(SUM_FIELDS))

    @property
    def group(self) -> Group:
        """Return what it is the usage of."""
        return Group(self.day, self.key, self.model)


class Said(BaseModel):
    """A `Count` on its way."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    requests: Amount = 0.0
    tokens: Amount = 0.0
    running: int = Field(default=0, ge=0)
    requests_spent: Amount = 0.0
    tokens_spent: Amount = 0.0
    strikes: int = Field(default=0, ge=0)
    blocked_s: float = Field(default=0.0, ge=0, le=3600)

    def count(self) -> Count:
        """Return it as the limiter has it."""
        return Count(
            self.requests,
            self.tokens,
            self.running,
            self.requests_spent,
            self.tokens_spent,
            self.strikes,
            self.blocked_s,
        )


def said(count: Count) -> Said:
    """Return a count in the form in which it travels."""
    return Said(
        requests=count.requests,
        tokens=count.tokens,
        running=count.running,
        requests_spent=count.requests_spent,
        tokens_spent=count.tokens_spent,
        strikes=count.strikes,
        blocked_s=count.blocked_s,
    )


class Note(BaseModel):
    """Everything in one message; the answer to it is one, too.

    `replica` names who speaks, and with it its account of usage: it stays over a restart. `life` is its process, which
    began `age_s` seconds ago and counts its notes by `number`. `counts` are those that changed since the other heard;
    all of them if it is `whole`. `have`: up to which version it knows whose usage; `rows`: what the other lacks of it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    replica: Id
    life: Id
    number: int = Field(ge=0)
    age_s: float = Field(ge=0)
    counts: dict[Annotated[str, Field(max_length=NAME)], Said] = Field(default_factory=dict)
    have: dict[Id, int] = Field(default_factory=dict)
    rows: list[Row] = Field(default_factory=list, max_length=MOST_ROWS)
    whole: bool = False
    uses: dict[Annotated[str, Field(max_length=NAME)], Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )  # by job: how many seconds ago its model was used here, 0 while it is
    leaving: bool = False


def parse_note(text: bytes) -> Note:
    """Read a note.

    Raises:
        ValueError: it is something else.
    """
    try:
        return Note.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"no note of a replica: {in_words(error)}") from None
