"""Chooses the rows that the report shows, in a second pass over the ledger. The choice depends only on values and keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.engine.output.ledger import ledger_files
from vlmdata.engine.store.store_protocol import Store
from vlmdata.redact import redacted
from vlmdata.report.items import WHOLE, Verdicts, values, verdicts
from vlmdata.report.read_ledger import ranges
from vlmdata.report.scan_ledger import Rule
from vlmdata.report.threshold_lines import Line

NEAREST = 12  # examples on each side of a threshold; more than the page shows, because some look alike
COPIES = 5  # rejected rows of a cluster
SAMPLES = 18


Cluster = tuple[str, str]  # a step that rejects copies, and the key of the row that it kept


@dataclass(frozen=True)
class Example:
    """A row of the ledger that the report shows, or one image or text of such a row."""

    number: int  # number of the row in the ledger
    key: str
    place: int  # position of the image or text; WHOLE for the row itself
    value: float | None
    url: str | None
    is_kept: bool  # whether it is in a tar
    before: int  # kept positions before `place`; packing joins `joined` of them to others, except in a conversation
    joined: int  # kept texts up to `place` that packing joined to the text before them
    images_before: int  # kept images before `place`


@dataclass
class Nearest:
    """Collects the `size` examples with the smallest distance. Ties are broken by key, and then by position in the row."""

    size: int
    found: list[tuple[tuple[float, str, int], Example]] = field(default_factory=list)

    def add(
        self, distance: np.ndarray, row: np.ndarray, place: np.ndarray, ledger_range: LedgerRange, value: np.ndarray | None
    ) -> None:
        """Add the items of `ledger_range` that are among the `size` nearest.

        Item i is at `place[i]` of row `row[i]`. It has the distance `distance[i]` and, if `value` is given, the
        value `value[i]`.
        """
        if not len(distance):
            return
        worst = self.found[-1][0][0] if len(self.found) == self.size else np.inf
        limit = min(worst, np.partition(distance, min(self.size, len(distance)) - 1)[: self.size].max())
        near = np.flatnonzero(distance <= limit)
        keys = ledger_range.rows["key"].take(pa.array(row[near])).to_pylist()
        ranked = sorted(zip(distance[near].tolist(), keys, place[near].tolist(), near.tolist(), strict=True))[: self.size]
        for gap, key, at, item in ranked:
            shown = ledger_range.example(int(row[item]), at, None if value is None else float(value[item]))
            self.found.append(((gap, key, at), shown))
        self.found = sorted(self.found, key=lambda pair: pair[0])[: self.size]

    def examples(self) -> list[Example]:
        """Return the examples, nearest first."""
        return [example for _, example in self.found]


@dataclass(frozen=True)
class LedgerRange:
    """Consecutive rows of the ledger with their verdicts. `first` is the number of ledger rows before them."""

    first: int
    rows: pa.Table
    found: Verdicts

    def example(self, row: int, place: int, value: float | None) -> Example:
        """Return an example: the image or text at `place` of a row, or the whole row if `place` is WHOLE.

        `row` is the index of the row in this range.
        """
        line = self.rows.select(["key", "url", "outcome", "images", "texts"]).slice(row, 1).to_pylist()[0]
        images, texts = line["images"] or [], line["texts"] or []
        is_alive = [_is_alive(images, i) or _is_alive(texts, i) for i in range(max(len(images), len(texts)))]
        here = images[place] if WHOLE < place < len(images) else None
        is_kept = line["outcome"] == "kept" and (place == WHOLE or is_alive[place])
        return Example(
            self.first + row,
            line["key"],
            place,
            value,
            redacted((here["url"] if here and here["url"] else line["url"]) or "") or None,
            is_kept,
            sum(is_alive[: max(place, 0)]),
            _joined(images, texts, place),
            sum(_is_alive(images, i) for i in range(max(place, 0))),
        )


def _joined(images: list[Any], texts: list[Any], place: int) -> int:
    """Return how many texts at positions up to `place` packing joined to the kept text before them.

    Packing joins a kept text to the kept text before it if no kept image is between them.
    """
    count, is_behind_text = 0, False
    for i in range(place + 1):
        if _is_alive(texts, i):
            count += is_behind_text
            is_behind_text = True
        elif _is_alive(images, i):
            is_behind_text = False
    return count


@dataclass(frozen=True)
class Chosen:
    """The chosen examples: near the threshold of each rule, from each cluster of copies, and from the whole dataset."""

    kept: dict[Rule, list[Example]]
    rejected: dict[Rule, list[Example]]
    clusters: dict[Cluster, tuple[list[Example], list[Example]]]  # the kept row, and copies that the step rejected
    samples: list[Example]


def choose(
    store: Store, manifest: dict[str, Any], levels: dict[Rule, tuple[float, Line | None]], wanted: Sequence[Cluster]
) -> Chosen:
    """Read the ledger once and choose examples for the rules in `levels` and the clusters of copies in `wanted`.

    `levels` maps each rule to its threshold and to the line of this threshold in a histogram. The line is None if no
    histogram shows the threshold.
    """
    kept = {rule: Nearest(NEAREST) for rule in levels}
    rejected = {rule: Nearest(NEAREST) for rule in levels}
    clusters = {cluster: (Nearest(1), Nearest(COPIES)) for cluster in wanted}
    samples = Nearest(SAMPLES)
    scores = {line.score for _, line in levels.values() if line is not None}
    own = {"key", "url", "outcome", "step", "reason", "value", "threshold", "cluster", "images", "texts"}
    for first, rows in ranges(store, ledger_files(manifest), [*own, *scores]):
        ledger_range = LedgerRange(first, rows, verdicts(rows))
        for rule, (at, line) in levels.items():
            _add_rejected(rejected[rule], ledger_range, rule, at)
            if line is not None:
                _add_kept(kept[rule], ledger_range, line)
        _add_clusters(clusters, ledger_range)
        kept_rows = np.flatnonzero(pc.equal(rows["outcome"], "kept").to_numpy(zero_copy_only=False))
        samples.add(np.zeros(len(kept_rows)), kept_rows, np.full(len(kept_rows), WHOLE), ledger_range, None)
    return Chosen(
        {rule: near.examples() for rule, near in kept.items()},
        {rule: near.examples() for rule, near in rejected.items()},
        {cluster: (representative.examples(), copies.examples()) for cluster, (representative, copies) in clusters.items()},
        samples.examples(),
    )


def _add_rejected(near: Nearest, ledger_range: LedgerRange, rule: Rule, at: float) -> None:
    found = ledger_range.found
    if rule not in found.pairs:
        return
    hit = np.flatnonzero((found.code == found.pairs.index(rule)) & np.isfinite(found.value))
    items = hit[found.place[hit] != WHOLE]
    hit = items if len(items) else hit
    value = found.value[hit]
    near.add(np.abs(value - at), found.row[hit], found.place[hit], ledger_range, value)


def _add_kept(near: Nearest, ledger_range: LedgerRange, line: Line) -> None:
    if line.score in ledger_range.rows.column_names or " " in line.score:
        value, row, place = values(ledger_range.rows, line.score)
        lives = np.isfinite(value) & (ledger_range.found.fate(row, place) < 0)
        value, row, place = value[lives], row[lives], place[lives]
        near.add(np.abs(value - line.at), row, place, ledger_range, value)


def _add_clusters(clusters: dict[Cluster, tuple[Nearest, Nearest]], ledger_range: LedgerRange) -> None:
    wanted = pa.array(sorted({key for _, key in clusters}), pa.string())
    rows = ledger_range.rows
    for column, which in (("key", 0), ("cluster", 1)):
        names = rows[column].combine_chunks()
        at = np.flatnonzero(pc.is_in(names, value_set=wanted).to_numpy(zero_copy_only=False))
        value = pc.fill_null(rows["value"].combine_chunks().take(pa.array(at)), np.nan).to_numpy()
        found = np.array(names.take(pa.array(at)).to_pylist(), object)
        steps = np.array(rows["step"].take(pa.array(at)).to_pylist(), object)
        for (step, key), nears in clusters.items():
            own = (found == key) & ((steps == step) | (which == 0))
            nears[which].add(
                np.zeros(own.sum()), at[own], np.full(own.sum(), WHOLE), ledger_range, value[own] if which else None
            )


def _is_alive(items: list[Any], place: int) -> bool:
    return place < len(items) and items[place] is not None and items[place]["drop"] is None
