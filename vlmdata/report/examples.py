"""A second pass over the ledger: which rows are shown. Chosen by value and key alone, so the same ones every time."""

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
from vlmdata.report.read_ledger import stretches
from vlmdata.report.scan_ledger import Rule
from vlmdata.report.threshold_lines import Line

NEAREST = 12  # on either side of a line; more than are shown, for some are alike
COPIES = 5  # of a cluster, besides the one kept
SAMPLES = 18


Cluster = tuple[str, str]  # a step that rejects copies, and the key of the row it kept


@dataclass(frozen=True)
class Example:
    """A row of the ledger to be shown, or one image or text of it."""

    number: int  # of the row in the ledger
    key: str
    place: int  # of the image or text; WHOLE: the row
    value: float | None
    url: str | None
    is_kept: bool  # it lies in a tar
    before: int  # positions of the row before `place` that were kept: its place in the sample, but for
    joined: int  # texts, among them and at `place`, that packing joined to the text before
    images_before: int  # images among them


@dataclass
class Nearest:
    """The `size` examples that come first by (distance, key, place)."""

    size: int
    found: list[tuple[tuple[float, str, int], Example]] = field(default_factory=list)

    def add(
        self, distance: np.ndarray, row: np.ndarray, place: np.ndarray, stretch: LedgerRange, value: np.ndarray | None
    ) -> None:
        """Consider items of a stretch."""
        if not len(distance):
            return
        worst = self.found[-1][0][0] if len(self.found) == self.size else np.inf
        limit = min(worst, np.partition(distance, min(self.size, len(distance)) - 1)[: self.size].max())
        near = np.flatnonzero(distance <= limit)
        keys = stretch.rows["key"].take(pa.array(row[near])).to_pylist()
        ranked = sorted(zip(distance[near].tolist(), keys, place[near].tolist(), near.tolist(), strict=True))[: self.size]
        for gap, key, at, item in ranked:
            shown = stretch.example(int(row[item]), at, None if value is None else float(value[item]))
            self.found.append(((gap, key, at), shown))
        self.found = sorted(self.found, key=lambda pair: pair[0])[: self.size]

    def examples(self) -> list[Example]:
        return [example for _, example in self.found]


@dataclass(frozen=True)
class LedgerRange:
    """Neighbouring lines of the ledger."""

    first: int
    rows: pa.Table
    found: Verdicts

    def example(self, row: int, place: int, value: float | None) -> Example:
        """Describe one row, or one position of it."""
        line = self.rows.select(["key", "url", "outcome", "images", "texts"]).slice(row, 1).to_pylist()[0]
        images, texts = line["images"] or [], line["texts"] or []
        living = [_lives(images, i) or _lives(texts, i) for i in range(max(len(images), len(texts)))]
        here = images[place] if WHOLE < place < len(images) else None
        is_kept = line["outcome"] == "kept" and (place == WHOLE or living[place])
        return Example(
            self.first + row,
            line["key"],
            place,
            value,
            redacted((here["url"] if here and here["url"] else line["url"]) or "") or None,
            is_kept,
            sum(living[: max(place, 0)]),
            _joined(images, texts, place),
            sum(_lives(images, i) for i in range(max(place, 0))),
        )


def _joined(images: list[Any], texts: list[Any], place: int) -> int:
    """Count the kept texts up to a place that stand right behind another, no kept image between."""
    count, is_behind_text = 0, False
    for i in range(place + 1):
        if _lives(texts, i):
            count += is_behind_text
            is_behind_text = True
        elif _lives(images, i):
            is_behind_text = False
    return count


@dataclass(frozen=True)
class Chosen:
    """The rows to be shown: at each rule's line, of each cluster, and of the whole."""

    kept: dict[Rule, list[Example]]
    rejected: dict[Rule, list[Example]]
    clusters: dict[Cluster, tuple[list[Example], list[Example]]]  # the row that was kept, and copies that the step rejected
    samples: list[Example]


def choose(
    store: Store, manifest: dict[str, Any], levels: dict[Rule, tuple[float, Line | None]], wanted: Sequence[Cluster]
) -> Chosen:
    """Read the ledger once. `levels`: rule -> threshold, with its line where a score is known."""
    kept = {rule: Nearest(NEAREST) for rule in levels}
    rejected = {rule: Nearest(NEAREST) for rule in levels}
    clusters = {cluster: (Nearest(1), Nearest(COPIES)) for cluster in wanted}
    samples = Nearest(SAMPLES)
    scores = {line.score for _, line in levels.values() if line is not None}
    own = {"key", "url", "outcome", "step", "reason", "value", "threshold", "cluster", "images", "texts"}
    for first, rows in stretches(store, ledger_files(manifest), [*own, *scores]):
        stretch = LedgerRange(first, rows, verdicts(rows))
        for rule, (at, line) in levels.items():
            _add_rejected(rejected[rule], stretch, rule, at)
            if line is not None:
                _add_kept(kept[rule], stretch, line)
        _add_clusters(clusters, stretch)
        living = np.flatnonzero(pc.equal(rows["outcome"], "kept").to_numpy(zero_copy_only=False))
        samples.add(np.zeros(len(living)), living, np.full(len(living), WHOLE), stretch, None)
    return Chosen(
        {rule: near.examples() for rule, near in kept.items()},
        {rule: near.examples() for rule, near in rejected.items()},
        {cluster: (leader.examples(), copies.examples()) for cluster, (leader, copies) in clusters.items()},
        samples.examples(),
    )


def _add_rejected(near: Nearest, stretch: LedgerRange, rule: Rule, at: float) -> None:
    found = stretch.found
    if rule not in found.pairs:
        return
    hit = np.flatnonzero((found.code == found.pairs.index(rule)) & np.isfinite(found.value))
    items = hit[found.place[hit] != WHOLE]
    hit = items if len(items) else hit
    value = found.value[hit]
    near.add(np.abs(value - at), found.row[hit], found.place[hit], stretch, value)


def _add_kept(near: Nearest, stretch: LedgerRange, line: Line) -> None:
    if line.score in stretch.rows.column_names or " " in line.score:
        value, row, place = values(stretch.rows, line.score)
        lives = np.isfinite(value) & (stretch.found.fate(row, place) < 0)
        value, row, place = value[lives], row[lives], place[lives]
        near.add(np.abs(value - line.at), row, place, stretch, value)


def _add_clusters(clusters: dict[Cluster, tuple[Nearest, Nearest]], stretch: LedgerRange) -> None:
    wanted = pa.array(sorted({key for _, key in clusters}), pa.string())
    rows = stretch.rows
    for column, which in (("key", 0), ("cluster", 1)):
        names = rows[column].combine_chunks()
        at = np.flatnonzero(pc.is_in(names, value_set=wanted).to_numpy(zero_copy_only=False))
        value = pc.fill_null(rows["value"].combine_chunks().take(pa.array(at)), np.nan).to_numpy()
        found = np.array(names.take(pa.array(at)).to_pylist(), object)
        steps = np.array(rows["step"].take(pa.array(at)).to_pylist(), object)
        for (step, key), nears in clusters.items():
            own = (found == key) & ((steps == step) | (which == 0))
            nears[which].add(np.zeros(own.sum()), at[own], np.full(own.sum(), WHOLE), stretch, value[own] if which else None)


def _lives(items: list[Any], place: int) -> bool:
    return place < len(items) and items[place] is not None and items[place]["drop"] is None
