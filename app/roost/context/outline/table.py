"""The shape of a table: CSV and its like, JSON lines, a JSON document."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from roost.context.outline.lines import Entry, one_line

DELIMITERS = ",\t;|"
SAMPLE_ROWS = 3
LOOKED_AT = 20_000
"""Rows that columns are judged by."""
MOST_COLUMNS = 60
MOST_KEYS = 40
DEPTH = 3


def delimited(text: str, name: str = "") -> list[Entry]:
    """Return columns, rows and samples of delimited text; none if it is no table of at least two rows and columns."""
    lines = text.splitlines()
    delimiter = "\t" if name.endswith(".tsv") else _delimiter(lines[:20])
    if not delimiter or len(lines) < 2:
        return []
    try:
        rows = list(islice(csv.reader(io.StringIO(text), delimiter=delimiter), LOOKED_AT))
    except csv.Error:
        return []
    head, body = rows[0], rows[1:]
    alike = sum(len(row) == len(head) for row in body)
    if len(head) < 2 or not body or alike < 0.9 * len(body):
        return []
    said = "at least " if len(rows) == LOOKED_AT else ""
    made = [Entry(0, f"{said}{len(body)} rows below the first, {len(head)} columns, separated by {delimiter!r}")]
    for column, title in list(enumerate(head))[:MOST_COLUMNS]:
        made.append(Entry(1, f"{title}: {_values(row[column] for row in body if column < len(row))}"))
    return [*made, *_samples([delimiter.join(row) for row in body])]


def _delimiter(lines: Sequence[str]) -> str:
    """Return the delimiter that all of the first lines have equally often, the most frequent one; or nothing."""
    best = ""
    for delimiter in DELIMITERS:
        counts = {line.count(delimiter) for line in lines if line.strip() and '"' not in line}
        if len(counts) == 1 and (often := counts.pop()) and (not best or often > lines[0].count(best)):
            best = delimiter
    return best


def _values(values: Iterable[str]) -> str:
    """Return what kind of values a column has: numbers with their range, or texts with the frequent ones."""
    numbers: list[float] = []
    texts: Counter[str] = Counter()
    empty = 0
    for value in values:
        if not value.strip():
            empty += 1
            continue
        try:
            numbers.append(float(value))
        except ValueError:
            texts[value] += 1
    gone = f", {empty} empty" if empty else ""
    if numbers and not texts:
        return f"numbers {min(numbers):g} to {max(numbers):g}{gone}"
    often = ", ".join(f"{one_line(text, 24)!r}" for text, _ in texts.most_common(3))
    mixed = f", {len(numbers)} numbers among them" if numbers else ""
    return f"text, {len(texts)} different ({often}){mixed}{gone}"


def json_lines(text: str) -> list[Entry]:
    """Return keys and samples of JSON lines; none if most lines are no objects."""
    lines = [line for line in text.splitlines() if line.strip()]
    objects = [found for line in lines[:LOOKED_AT] if isinstance(found := _parsed(line), dict)]
    if len(objects) < 2 or len(objects) < 0.9 * min(len(lines), LOOKED_AT):
        return []
    made = [Entry(0, f"{len(lines)} lines, each a JSON object")]
    keys = Counter(key for found in objects for key in found)
    for key, count in keys.most_common(MOST_KEYS):
        kinds = Counter(_kind(found[key]) for found in objects if key in found)
        where = "" if count == len(objects) else f", in {count} of {len(objects)}"
        made.append(Entry(1, f"{key}: {' or '.join(kind for kind, _ in kinds.most_common(3))}{where}"))
    return [*made, *_samples(lines)]


def document(text: str) -> list[Entry]:
    """Return the shape of one JSON document; none if it is none."""
    found = _parsed(text)
    if not isinstance(found, dict | list) or not found:
        return []
    made: list[Entry] = []
    _shape("document", found, 0, made)
    return made


def _shape(name: str, value: object, depth: int, made: list[Entry]) -> None:
    if isinstance(value, Mapping):
        made.append(Entry(depth, f"{name}: object with {len(value)} keys"))
        if depth < DEPTH:
            for key in list(value)[:MOST_KEYS]:
                _shape(str(key), value[key], depth + 1, made)
            if len(value) > MOST_KEYS:
                made.append(Entry(depth + 1, f"… and {len(value) - MOST_KEYS} more keys"))
    elif isinstance(value, list):
        made.append(Entry(depth, f"{name}: list of {len(value)}"))
        if value and depth < DEPTH:
            _shape("first", value[0], depth + 1, made)
    else:
        shown = json.dumps(value, ensure_ascii=False)
        made.append(Entry(depth, f"{name}: {one_line(shown, 60)}"))


def _kind(value: object) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return kinds.get(type(value), "null")


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _samples(rows: Sequence[str]) -> list[Entry]:
    chosen = [*rows[:SAMPLE_ROWS], *([rows[-1]] if len(rows) > SAMPLE_ROWS else [])]
    return [Entry(0, "for example"), *(Entry(1, row) for row in chosen)]
