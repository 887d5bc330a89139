"""Provenance: the number of samples from each source and under each licence, as stated in columns of the input."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from vlmdata.redact import redacted

COLUMNS = ("license", "licence", "license_url", "source", "dataset", "attribution")  # common columns of lists of images
MOST = 1000  # maximum number of values listed per column; a column with more describes single samples, not licences
OTHERS = "(others)"

Tally = dict[str, dict[str, int]]  # column -> value -> number of samples


def tally(documents: Iterable[bytes]) -> Tally:
    """Count the values of each column in COLUMNS (licence, source, …), given the JSON documents of samples."""
    counts: dict[str, Counter[str]] = {}
    for document in documents:
        facts = json.loads(document)
        for column in COLUMNS:
            if isinstance(value := facts.get(column), str):
                counts.setdefault(column, Counter())[redacted(value)[:200]] += 1
    return {column: _largest(values) for column, values in counts.items()}


def total(tallies: Iterable[Tally], sign: int = 1, start: Tally | None = None) -> Tally:
    """Return `start` plus the tallies or, with `sign=-1`, `start` minus the tallies."""
    sums = {column: Counter(values) for column, values in (start or {}).items()}
    for one in tallies:
        for column, values in one.items():
            into = sums.setdefault(column, Counter())
            for value, count in values.items():
                known = value if sign > 0 or value in into else OTHERS
                into[known] += sign * count
    return {column: _largest(+values) for column, values in sorted(sums.items()) if +values}


def _largest(values: Counter[str]) -> dict[str, int]:
    ordered = sorted(values.items(), key=lambda item: (item[0] == OTHERS, -item[1], item[0]))
    if len(ordered) <= MOST:
        return dict(ordered)
    listed = [item for item in ordered if item[0] != OTHERS][: MOST - 1]
    return {**dict(listed), OTHERS: sum(values.values()) - sum(count for _, count in listed)}
