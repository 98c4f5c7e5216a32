"""Multinomial logistic regression with L2 regularisation on hashed n-grams, by Adam.

Kingma and Ba, Adam: a method for stochastic optimization, 2015, algorithm 1.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from roost.gateway.choice.decide import VISION, seen
from roost.gateway.choice.grams import vector
from roost.gateway.choice.semantic import Accuracy, LinearRouter, RouterFile
from roost.gateway.choice.training.examples import Example, digest_of, natural, split
from roost.ops.errors import RoostError

# Nomad takes variables of at most 64 KiB, and the router before is kept beside the present one:
# `roost.fleet.route_store`.
MOST_BYTES = 30_000
MOST_WEIGHTS = 40_960  # buckets times subjects; what does not compress into MOST_BYTES is pruned
LEAST_EACH = 10  # examples of a subject; with fewer nothing can be learnt or measured
EPOCHS, BATCH, RATE, DECAY = 12, 128, 0.05, 2e-5
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
TEMPERATURES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)
HIGHEST = 127

Matrix = NDArray[np.float32]
Progress = Callable[[int, int, float], None]


def train(examples: Sequence[Example], *, origin: str, seed: int = 0, progress: Progress | None = None) -> RouterFile:
    """Return a router trained on all examples, with what one that lacked some of them did with those.

    `progress` is told epoch, of how many, and the mean loss; twice, because two routers are trained.

    Raises:
        RoostError: there are too few examples, or of one subject only.
    """
    subjects = _subjects(examples)
    parts = split(examples, seed)
    missing = set(subjects) - {example.subject for example in parts.train}
    if missing or not parts.held_out:
        raise RoostError(
            f"There are too few examples of {', '.join(sorted(missing)) or 'anything'} to hold some back.",
            fix="Give more of them, as different from each other as possible.",
        )
    buckets = 1 << int(math.log2(MOST_WEIGHTS // len(subjects)))
    weights, biases = _fit(parts.train, subjects, buckets, seed, progress)
    tried = _packed(subjects, buckets, weights, biases)
    temperature = _temperature(tried, parts.validation or parts.held_out)
    held_out = measure(LinearRouter(tried.model_copy(update={"temperature": temperature})), parts.held_out)
    weights, biases = _fit(examples, subjects, buckets, seed, progress)
    file = _packed(subjects, buckets, weights, biases).model_copy(update={"temperature": temperature})
    known = [example for example in natural() if example.subject in subjects]
    return file.model_copy(
        update={
            "natural": measure(LinearRouter(file), known) if known else None,
            "made": datetime.now(UTC).replace(microsecond=0).isoformat(),
            "origin": origin,
            "digest": digest_of(examples),
            "examples": len(examples),
            "held_out": held_out,
        }
    )


def measure(router: LinearRouter, examples: Sequence[Example]) -> Accuracy:
    """Return how a router does with examples; those of subjects that it does not know count as wrong."""
    right = sure = right_when_sure = 0
    of, good = Counter[str](), Counter[str]()
    for example in examples:
        guess = seen(router.guess(example.text), images=example.subject == VISION)
        fine = guess.ranked()[0][0] == example.subject
        right += fine
        sure += bool(guess.subject)
        right_when_sure += bool(guess.subject) and fine
        of[example.subject] += 1
        good[example.subject] += fine
    count = len(examples)
    return Accuracy(
        examples=count,
        right=_share(right, count),
        sure=_share(sure, count),
        right_when_sure=_share(right_when_sure, sure),
        by_subject={subject: _share(good[subject], of[subject]) for subject in sorted(of)},
    )


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _subjects(examples: Sequence[Example]) -> tuple[str, ...]:
    counts = Counter(example.subject for example in examples)
    few = sorted(subject for subject, count in counts.items() if count < LEAST_EACH)
    if few or len(counts) < 2:
        raise RoostError(
            f"Fewer than {LEAST_EACH} examples of {', '.join(few)}." if few else "There is only one subject.",
            fix="Give more examples; `roost route data` makes some.",
        )
    return tuple(sorted(counts))


@dataclass(frozen=True)
class _Rows:
    """Sparse rows one after the other: where each begins, and the column and value of each entry."""

    starts: NDArray[np.int_]
    columns: NDArray[np.int_]
    values: Matrix

    @classmethod
    def of(cls, vectors: Sequence[dict[int, float]], bias: int) -> _Rows:
        """Put vectors together, each with a 1 in the column `bias`."""
        full = [{**found, bias: 1.0} for found in vectors]
        starts = np.cumsum([0, *(len(found) for found in full[:-1])])
        columns = np.concatenate([np.fromiter(found, dtype=np.int64) for found in full])
        values = np.concatenate([np.fromiter(found.values(), dtype=np.float32) for found in full])
        return cls(starts, columns, values)

    def times(self, weights: Matrix) -> Matrix:
        """Return the product with a matrix."""
        found: Matrix = np.add.reduceat(weights[self.columns] * self.values[:, None], self.starts, axis=0)
        return found

    def transposed_times(self, other: Matrix, height: int) -> Matrix:
        """Return the product of the transposed with a matrix that has a row for each of ours."""
        lengths = np.diff([*self.starts, len(self.columns)])
        entries = np.repeat(other, lengths, axis=0) * self.values[:, None]
        sums = [np.bincount(self.columns, entries[:, place], height) for place in range(other.shape[1])]
        return np.stack(sums, axis=1).astype(np.float32)


def _fit(
    examples: Sequence[Example], subjects: Sequence[str], buckets: int, seed: int, progress: Progress | None
) -> tuple[Matrix, Matrix]:
    """Return weights (buckets, subjects) and biases (subjects).

    Each subject counts alike, however many examples it has.
    """
    vectors = [vector(example.text, buckets) for example in examples]
    number = {subject: place for place, subject in enumerate(subjects)}
    targets = np.array([number[example.subject] for example in examples])
    counts = np.bincount(targets, minlength=len(subjects))
    importance = (len(examples) / (len(subjects) * np.maximum(counts, 1)))[targets].astype(np.float32)
    weights = np.zeros((buckets + 1, len(subjects)), dtype=np.float32)  # the last row is the bias
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    chance = np.random.default_rng(seed)
    step = 0
    for epoch in range(1, EPOCHS + 1):
        order = chance.permutation(len(examples))
        losses = []
        for begin in range(0, len(examples), BATCH):
            chosen = order[begin : begin + BATCH]
            rows = _Rows.of([vectors[place] for place in chosen], buckets)
            loss, slope = _slope(rows, targets[chosen], importance[chosen], weights)
            losses.append(loss)
            step += 1
            first += (1 - BETA1) * (slope - first)
            second += (1 - BETA2) * (slope * slope - second)
            rate = RATE * math.sqrt(1 - BETA2**step) / (1 - BETA1**step)
            weights -= rate * first / (np.sqrt(second) + EPSILON)
        if progress:
            progress(epoch, EPOCHS, float(np.mean(losses)))
    return weights[:-1], weights[-1]


def _slope(rows: _Rows, targets: NDArray[np.int_], importance: Matrix, weights: Matrix) -> tuple[float, Matrix]:
    """Return the mean loss of a batch, -ln p(target), and its gradient with the regularisation's."""
    scores = rows.times(weights)
    scores -= scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    shares /= shares.sum(axis=1, keepdims=True)
    places = np.arange(len(targets))
    loss = float(np.mean(-np.log(shares[places, targets] + 1e-9) * importance))
    shares[places, targets] -= 1
    errors = (shares * importance[:, None] / len(targets)).astype(np.float32)
    return loss, rows.transposed_times(errors, len(weights)) + np.float32(DECAY) * weights


def _packed(subjects: tuple[str, ...], buckets: int, weights: Matrix, biases: Matrix) -> RouterFile:
    """Quantise to signed bytes, and leave the smallest weights out until the file is small enough."""
    scales = np.maximum(np.abs(weights).max(axis=0), 1e-6) / HIGHEST
    whole = np.rint(weights / scales).astype(np.int8)
    least = 0
    while True:
        kept = np.where(np.abs(whole) > least, whole, 0).astype(np.int8)
        file = RouterFile(
            subjects=subjects,
            buckets=buckets,
            scales=tuple(float(f"{scale:.6g}") for scale in scales),
            biases=tuple(float(f"{bias:.6g}") for bias in biases),
            temperature=1.0,
            weights=base64.b64encode(zlib.compress(kept.tobytes(), 9)).decode(),
        )
        if len(file.text()) <= MOST_BYTES - 2000 or least >= HIGHEST:  # what is said of it comes on top
            return file
        least += 1


def _temperature(file: RouterFile, examples: Sequence[Example]) -> float:
    """Return the temperature with which the probabilities are the least wrong: the lowest -ln p(subject)."""

    def loss(temperature: float) -> float:
        router = LinearRouter(file.model_copy(update={"temperature": temperature}))
        guesses = ((seen(router.guess(one.text), images=one.subject == VISION), one.subject) for one in examples)
        return -sum(math.log(max(guess.probabilities.get(subject, 0.0), 1e-9)) for guess, subject in guesses)

    return min(TEMPERATURES, key=loss)
