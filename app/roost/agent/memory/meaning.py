"""Likeness of meaning: vectors of an embedding model, asked for through the gateway, compared in plain Python."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from operator import mul
from typing import Protocol

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from roost.context.api import ask
from roost.ops.errors import RoostError

EMBEDDINGS_PATH = "/v1/embeddings"
MODELS_PATH = "/v1/models"
SLOT = "embedding"
EMBED = "embed"
TIMEOUT_S = 10.0
BATCH = 32


class EmbeddingError(RoostError):
    """There are no vectors."""


class Embedder(Protocol):
    """Whoever makes vectors. Raises EmbeddingError where they cannot be had now."""

    async def model(self) -> str:
        """Return the name of the model for it, '' where there is none."""
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> list[array[float]]:
        """Return a vector of length 1 for each text, in their order."""
        ...


class _Embedding(BaseModel):
    model_config = ConfigDict(extra="ignore")

    index: int
    embedding: list[float]


class _Embeddings(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: list[_Embedding]


class ApiEmbedder:
    """Asks the OpenAI-compatible API, with the key of whoever asks. One object a question or turn: it asks once."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession, key: str) -> None:
        self._base = base_url.rstrip("/")
        self._session = session
        self._key = key
        self._model: str | None = None

    async def model(self) -> str:
        """Return a model that can embed: the one of the slot for it, else any that may be used unasked."""
        if self._model is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            headers = {"Authorization": f"Bearer {self._key}"}
            try:
                async with self._session.get(self._base + MODELS_PATH, headers=headers, timeout=timeout) as answer:
                    document = await answer.json(content_type=None) if answer.status == 200 else {}
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise EmbeddingError(
                    f"The models cannot be asked for: {error or type(error).__name__}.", fix="See `roost status`."
                ) from None
            self._model = chosen(document.get("data", []) if isinstance(document, dict) else [])
        return self._model

    async def embed(self, model: str, texts: Sequence[str]) -> list[array[float]]:
        """Return a vector for each text. Raises EmbeddingError."""
        made: list[array[float]] = []
        for start in range(0, len(texts), BATCH):
            made += await self._batch(model, texts[start : start + BATCH])
        return made

    async def _batch(self, model: str, texts: Sequence[str]) -> list[array[float]]:
        body = {"model": model, "input": list(texts), "encoding_format": "float"}
        try:
            status, raw = await ask(self._session, self._base + EMBEDDINGS_PATH, self._key, body, TIMEOUT_S)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EmbeddingError(
                f"The embedding model does not answer: {error or type(error).__name__}.", fix="See `roost status`."
            ) from None
        if status != 200:
            raise EmbeddingError(f"The embedding model {model} answered {status}.", fix="See `roost models`.")
        try:
            found = sorted(_Embeddings.model_validate_json(raw).data, key=lambda one: one.index)
        except ValidationError:
            found = []
        if [one.index for one in found] != list(range(len(texts))) or not all(one.embedding for one in found):
            raise EmbeddingError(f"The embedding model {model} answered in no known form.", fix="See its log.")
        return [unit(one.embedding) for one in found]


def chosen(entries: Sequence[object]) -> str:
    """Return the model for embeddings among entries of `/v1/models`, '' if there is none.

    A chat model that could embed as well is not taken for it: its vectors say little, and its server has other work.
    """
    for entry in entries:
        about = entry.get("roost") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(about, dict) or not about.get("auto", True):
            continue
        can = about.get("can")
        able = can is None or EMBED in can
        if able and (about.get("slot") == SLOT or (can is not None and "generate" not in can and EMBED in can)):
            return str(entry.get("id") or "")
    return ""


def unit(numbers: Sequence[float]) -> array[float]:
    """Return a vector of length 1 in that direction; of zeros, itself."""
    length = math.sqrt(sum(map(mul, numbers, numbers)))
    if not length or not math.isfinite(length):
        return array("f", bytes(4 * len(numbers)))
    return array("f", (number / length for number in numbers))


def nearest(query: array[float], vectors: Sequence[tuple[str, array[float]]], least: float, most: int) -> list[str]:
    """Return the ids of the vectors most like a query, the most alike first; cosine at least `least`."""
    alike = [(sum(map(mul, query, vector)), name) for name, vector in vectors if len(vector) == len(query)]
    return [name for likeness, name in sorted(alike, key=lambda one: (-one[0], one[1])) if likeness >= least][:most]


def fused(*rankings: Sequence[str], constant: int = 60) -> list[str]:
    """Return one ranking of several: reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009, k = 60)."""
    weights: dict[str, float] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, start=1):
            weights[name] = weights.get(name, 0.0) + 1.0 / (constant + rank)
    return sorted(weights, key=lambda name: (-weights[name], name))
