"""A user's own model: what its GGUF header says, written as an entry of `models_custom`. Pure.

An entry made here has the same schema as the catalogue's, so that it is estimated and placed like those.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from roost.hosts.tiers import BORDERS
from roost.models.choose import Seen, guess_roles
from roost.models.gguf_header import Header, Skipped, Value, type_name
from roost.models.schema import (
    SHAPE_KEYS,
    ListedDownload,
    ListedEntry,
    Parameters,
    Role,
    ShapeValue,
)
from roost.ops.errors import RoostError

GIB = 1 << 30
ROOM = 1.2  # memory that a model takes for each byte of weights, with a short context
EMBEDDED_GIB = 1.0  # what runs on a machine below potato
MAX_SHAPE_ITEMS = 512  # one for each layer; a vocabulary is no shape
MOST_TEXT = 120  # characters of a title or licence
SHAPE_KEY = re.compile(r"[A-Za-z0-9._-]{1,100}")
SHAPE_TEXT = re.compile(r"[A-Za-z0-9._ -]{0,60}")
QUANTISATION_NAME = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q[1-8](?:_[A-Z0-9]+)*|MXFP4(?:_MOE)?|TQ[12]_0|BF16|F16|F32))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
# general.file_type (llama.h: llama_ftype)
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
PREFERRED = ("Q4_K_M", "UD-Q4_K_M", "MXFP4", "Q4_K_S", "Q4_0", "IQ4_XS", "Q5_K_M", "Q8_0")


@dataclass(frozen=True)
class Added:
    """A model that is to be added: its name, the quantisation of the file, the entry, its header, what was guessed."""

    name: str
    quantisation: str
    entry: ListedEntry
    header: Header
    guessed: tuple[str, ...] = ()


def entry_of(
    header: Header,
    download: ListedDownload,
    *,
    name: str = "",
    roles: Mapping[Role, int] | None = None,
    projector: ListedDownload | None = None,
) -> Added:
    """Return the entry of a model with this header; `name` and `roles` are the user's where given.

    Raises:
        RoostError: the file holds no language model, or no name can be made of what it says.
    """
    text, architecture = _Text(header), header.architecture
    layers = header.metadata.get(f"{architecture}.block_count")
    if text("general.type", "model") != "model" or not isinstance(layers, int):
        raise RoostError(
            f"{download.file.name} holds no language model, but {plain(text('general.type')) or 'something else'}.",
            fix="Name the file of the model itself; projectors and adapters go with it.",
        )
    guessed: list[str] = []
    title = plain(text("general.name")) or _stem(download.file.name)
    if not name:
        name = name_of(title) or name_of(_stem(download.file.name))
        guessed.append(f"name {name}")
        if not name:
            raise RoostError(f"No name can be made of {title!r}.", fix="Give one with --name.")
    quantisation = quantisation_of(header, download.file.name)
    total = sum(tensor.elements for tensor in header.tensors)
    if roles is None:
        seen = Seen(name, title, architecture, text("tokenizer.chat_template"), projector is not None, total)
        roles = guess_roles(seen) or {"main": 1}
        guessed.append("roles " + ", ".join(f"{role} {worth}" for role, worth in roles.items()))
    licence = plain(text("general.license"))
    if not licence:
        guessed.append("licence unknown")
    shape = shape_of(header)
    context = shape.get("context_length")
    entry = ListedEntry(
        title=title,
        licence=licence or "unknown",
        architecture=architecture,
        parameters=Parameters(total=total, active=_active(header, total)),
        context_length=context if isinstance(context, int) and context > 0 else 4096,
        roles=dict(roles),
        tier=tier_of_bytes(sum(tensor.bytes for tensor in header.tensors)),
        shape=shape,
        projector=projector,
        quantisations={quantisation: download},
        facts=["everything but roles and tier: the file's own header"],
    )
    return Added(name, quantisation, entry, header, tuple(guessed))


def with_quantisation(before: ListedEntry, added: Added) -> ListedEntry:
    """Return an entry that has one quantisation more, or another file for one.

    Raises:
        RoostError: it is another model.
    """
    new = added.entry
    if (before.architecture, before.parameters) != (new.architecture, new.parameters):
        raise RoostError(
            f"There is another model called {added.name}: {before.title}, {before.parameters.total} parameters.",
            fix="Give this one another name with --name.",
        )
    return before.model_copy(update={"quantisations": {**before.quantisations, **new.quantisations}})


def plain(text: str) -> str:
    """Return a stranger's text as one short line: nothing that a terminal obeys, and no braces.

    It is written into host.yaml, whose texts Ansible reads as templates, and runs them as root.
    """
    shown = "".join(c for c in text if (c.isprintable() or c.isspace()) and c not in "{}")
    return " ".join(shown.split())[:MOST_TEXT].strip()


def name_of(title: str) -> str:
    """Return a title as a name of the catalogue: small letters, digits, `.`, `_` and `-`; empty if nothing is left."""
    return re.sub(r"[^a-z0-9._]+", "-", title.lower()).strip("-._")[:63].rstrip("-._")


def quantisation_of(header: Header, file_name: str) -> str:
    """Return the quantisation: as the file's name says, since it knows variants that the header does not; else as
    `general.file_type` does; else the type of most of the weights."""
    if found := named_quantisation(file_name):
        return found
    kind = header.metadata.get("general.file_type")
    if isinstance(kind, int) and kind in FILE_TYPES:
        return FILE_TYPES[kind]
    sizes: Counter[int] = Counter()
    for tensor in header.tensors:
        sizes[tensor.type] += tensor.bytes
    return type_name(sizes.most_common(1)[0][0]) if sizes else "unknown"


def named_quantisation(file_name: str) -> str:
    """Return the quantisation in a file's name, or an empty string."""
    found = QUANTISATION_NAME.findall(file_name)
    return str(found[-1]).upper() if found else ""


def choose_file(files: Sequence[str], quantisation: str) -> str:
    """Return the model file of a repository in a quantisation; without one, in the first of PREFERRED that it has.

    Raises:
        RoostError: there is none; the fix names those there are.
    """
    models = [f for f in files if f.endswith(".gguf") and "mmproj" not in f.lower() and not _is_later_part(f)]
    if quantisation.endswith(".gguf"):
        by_name = {PurePosixPath(f).name: f for f in models}
        if quantisation in models or quantisation in by_name:
            return by_name.get(quantisation, quantisation)
    by_kind: dict[str, str] = {}
    for file in sorted(models, key=lambda f: (len(f), f)):
        by_kind.setdefault(named_quantisation(PurePosixPath(file).name), file)
    wanted = [quantisation.upper()] if quantisation else [*PREFERRED, *by_kind]
    found = next((by_kind[kind] for kind in wanted if kind in by_kind), None)
    if found is None:
        there = ", ".join(sorted(kind for kind in by_kind if kind)) or "no GGUF file"
        raise RoostError(
            f"The repository has no GGUF file in the quantisation {quantisation!r}."
            if quantisation
            else "The repository has no GGUF file.",
            fix=f"It has: {there}.",
        )
    return found


def choose_projector(files: Sequence[str]) -> str:
    """Return a repository's projector file, in 16 bits where there is a choice; empty if it has none."""
    found = sorted(f for f in files if "mmproj" in f.lower() and f.endswith(".gguf"))
    return next((f for f in found if named_quantisation(f) == "F16"), found[0] if found else "")


def tier_of_bytes(weights: int) -> str:
    """Return the least tier whose memory holds a model with weights of so many bytes."""
    need = weights * ROOM / GIB
    if need <= EMBEDDED_GIB:
        return BORDERS[0].name
    return next(border.name for border in BORDERS[1:] if need <= border.most_gib)


def shape_of(header: Header) -> dict[str, ShapeValue]:
    """Return a header's hyperparameters as the catalogue lists them; empty if it lacks one of SHAPE_KEYS."""
    prefix = f"{header.architecture}."
    shape: dict[str, ShapeValue] = {}
    for key, value in header.metadata.items():
        short = key.removeprefix(prefix)
        if short != key and SHAPE_KEY.fullmatch(short) and (listed := _listed(value)) is not None:
            shape[short] = listed
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    count = tokens.count if isinstance(tokens, Skipped) else len(tokens) if isinstance(tokens, tuple) else 0
    if count:
        shape.setdefault("vocab_size", count)
    names = {tensor.name for tensor in header.tensors}
    shape["tied_embeddings"] = "output.weight" not in names
    return shape if all(key in shape for key in SHAPE_KEYS) else {}


def _listed(value: Value) -> ShapeValue | None:
    if isinstance(value, Skipped) or (isinstance(value, str) and not SHAPE_TEXT.fullmatch(value)):
        return None
    if not isinstance(value, tuple):
        return value if not isinstance(value, float) or math.isfinite(value) else None
    if not value or len(value) > MAX_SHAPE_ITEMS:
        return None
    if all(isinstance(item, bool) for item in value):
        return [bool(item) for item in value]
    if all(isinstance(item, int) for item in value):
        return [int(item) for item in value]
    return None


def _active(header: Header, total: int) -> int:
    prefix = header.architecture
    count, used = (header.metadata.get(f"{prefix}.expert{part}_count") for part in ("", "_used"))
    if not isinstance(count, int) or not isinstance(used, int) or not 0 < used <= count:
        return total
    experts = sum(tensor.elements for tensor in header.tensors if "_exps." in tensor.name)
    return total - experts * (count - used) // count


def _is_later_part(file: str) -> bool:
    return bool(re.search(r"-(?!00001)\d{5}-of-\d{5}\.gguf$", file))


def _stem(file_name: str) -> str:
    """Return a file's name without suffix, part and quantisation."""
    stem = re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", file_name)
    return QUANTISATION_NAME.sub("", stem).strip("-._ ")


class _Text:
    """Texts of a header's metadata, by key."""

    def __init__(self, header: Header) -> None:
        self.metadata = header.metadata

    def __call__(self, key: str, default: str = "") -> str:
        value = self.metadata.get(key, default)
        return value if isinstance(value, str) else default
