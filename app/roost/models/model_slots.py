"""What a user says of a model server: an entry of the variable `model_slots`, as group and host variables have it.

What is empty, or 0, is chosen; what is named is kept to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from roost.models.schema import MODEL_NAME, ROLES, Role
from roost.models.source_types import Strict
from roost.ops.errors import RoostError
from roost.ops.validation import place, problem

SLOT_NAME = r"^[a-z][a-z0-9-]{0,30}$"
LEAST_CONTEXT = 256  # tokens; below it an engine is of no use

GpuWish = Literal["auto", "none"] | list[Annotated[int, Field(ge=0)]]


class ModelSlot(BaseModel):
    """One model server that is wanted.

    `model` is `NAME` or `NAME:QUANT` of the catalogue, `path` a GGUF file on the host instead; with neither a model is
    chosen. `gpu` lists places of graphics processors as `roost hosts` shows them. `context_size` is in tokens
    for one request. `temperature` null leaves it to the client. `keep_warm`: never stopped, for being idle or for
    another's sake; `on_demand`: not started before somebody asks. `copies`: so many in the whole fleet, on whichever
    machines suit best, instead of one on each machine that has the entry; on a machine for itself it is one.
    """

    model_config = Strict

    slot: str = Field(pattern=SLOT_NAME)
    model: str = ""
    path: str = ""
    gpu: GpuWish = "auto"
    context_size: int = Field(default=0, ge=0)
    parallel: int = Field(default=1, ge=1, le=64)
    temperature: float | None = Field(default=None, ge=0, le=2)
    cache_ram_mib: int = Field(default=256, ge=0)
    adapters: list[Annotated[str, Field(pattern=MODEL_NAME)]] = Field(default_factory=list)
    keep_warm: bool = False
    on_demand: bool = False
    copies: int = Field(default=0, ge=0, le=64)

    @model_validator(mode="after")
    def _one_model(self) -> ModelSlot:
        if self.model and self.path:
            raise ValueError("name a model or a path, not both")
        if self.path and not Path(self.path).is_absolute():
            raise ValueError("path must begin with /")
        if self.keep_warm and self.on_demand:
            raise ValueError("a slot is kept warm or started on demand, not both")
        if self.copies and self.path:
            raise ValueError("a slot with copies may run on any machine, so it names a model and no path")
        if 0 < self.context_size < LEAST_CONTEXT:
            raise ValueError(f"context_size must be 0 (chosen) or at least {LEAST_CONTEXT}")
        if isinstance(self.gpu, list) and (not self.gpu or len(set(self.gpu)) != len(self.gpu)):
            raise ValueError("gpu must be auto, none, or a list of different indices")
        return self

    @property
    def is_explicit(self) -> bool:
        """Say whether the user named the model."""
        return bool(self.model or self.path)

    @property
    def role(self) -> Role:
        """Return the role a slot is chosen for: that of its name, as in `coding` or `router-2`, else main."""
        return role_of_slot(self.slot)


def role_of_slot(slot: str) -> Role:
    """Return the role in a slot's name."""
    return next((role for role in get_args(Role) if slot == role or slot.startswith(f"{role}-")), ROLES[0])


def parse_slots(entries: object) -> list[ModelSlot]:
    """Check the variable `model_slots`.

    Raises:
        RoostError: an entry is not valid, or two have one name; names every mistake.
    """
    fix = "Correct model_slots; docs/operations.md has an example."
    try:
        slots = TypeAdapter(list[ModelSlot]).validate_python(entries)
    except ValidationError as error:
        lines = [f"  {place(item) or 'model_slots'}: {problem(item)}" for item in error.errors()]
        raise RoostError("The variable model_slots is not valid:\n" + "\n".join(lines), fix=fix) from None
    twice = _twice([slot.slot for slot in slots])
    if twice:
        raise RoostError(f"The variable model_slots has two slots called {twice}.", fix=fix)
    return slots


def _twice(names: Sequence[str]) -> str:
    return next((name for number, name in enumerate(names) if name in names[:number]), "")
