"""Counts everything that the report shows, in one pass over the ledger. Memory does not grow with the number of rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.columns import COLUMNS
from vlmdata.engine.output.ledger import ledger_files
from vlmdata.engine.store.store_protocol import Store
from vlmdata.report.frequent_names import Heavy
from vlmdata.report.items import (
    SIDES,
    WHOLE,
    Verdicts,
    flat_values,
    is_number,
    is_word,
    item_type,
    values,
    verdicts,
    words_of,
)
from vlmdata.report.read_ledger import ranges, schema
from vlmdata.report.tally_numbers import NumberTally

HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/:?#]+)"
NO_HOST = "(no address)"
SAME = 1e-6  # relative tolerance: a verdict's value and the measured value may differ by float32 rounding
Rule = tuple[str, str | None]  # step and reason


@dataclass
class Judged:
    """The values that one rule (a step and a reason) rejected by comparing them with a threshold."""

    thresholds: Counter[float] = field(default_factory=Counter)
    below: int = 0  # rejected values below their threshold
    equal: int = 0  # rejected values equal to their threshold
    above: int = 0  # rejected values above their threshold
    values: NumberTally = field(default_factory=NumberTally)
    equal_to: Counter[str] = field(default_factory=Counter)  # score -> rejected items whose score equals the verdict's value

    @property
    def is_minimum(self) -> bool:
        """Whether the threshold is a minimum, so that kept values are above it."""
        return self.below > 0 or not self.above

    @property
    def sign(self) -> str:
        """The comparison (≥, >, ≤ or <) that kept values pass. It is strict if values equal to the threshold are rejected."""
        return (">" if self.equal else "≥") if self.is_minimum else ("<" if self.equal else "≤")


@dataclass
class Facts:
    """The counts over the whole ledger."""

    scores: dict[str, dict[Rule | None, NumberTally]]  # score -> rule that rejected the items (None: kept) -> values
    words: dict[str, Heavy]  # column of words -> word -> counts by step
    rules: dict[Rule, Judged]
    inside: Counter[Rule]  # images and texts rejected inside rows that were kept
    unsigned: frozenset[str] = frozenset()  # unsigned 64-bit scores: counts or hashes
    hosts: Heavy = field(default_factory=Heavy)
    clusters: Heavy = field(default_factory=Heavy)  # key of the kept row -> counts by step


def scan(store: Store, manifest: dict[str, Any]) -> Facts:
    """Read the ledger once and return the counts."""
    files = ledger_files(manifest)
    kinds = {f.name: f.type for f in schema(store, files) if f.name not in COLUMNS}
    scores = [name for name, kind in kinds.items() if is_number(kind)]
    words = [name for name, kind in kinds.items() if is_word(kind)]
    unsigned = frozenset(name for name in scores if pa.types.is_uint64(item_type(kinds[name])))
    tallies: dict[str, dict[Rule | None, NumberTally]] = {name: defaultdict(NumberTally) for name in [*SIDES, *scores]}
    facts = Facts(tallies, {word: Heavy(10_000) for word in words}, {}, Counter(), unsigned)
    for _, rows in ranges(store, files):
        _add(facts, rows)
    return facts


def _add(facts: Facts, rows: pa.Table) -> None:
    found = verdicts(rows)
    row_codes = found.codes_at(np.arange(len(rows)), np.full(len(rows), WHOLE))
    steps = [step for step, _ in found.pairs]
    _add_rules(facts, found)
    for name, by_rule in facts.scores.items():
        if name in SIDES or name in rows.column_names:
            _add_score(by_rule, facts, name, rows, found)
    for name, heavy in facts.words.items():
        if name in rows.column_names:
            column, row, place = flat_values(rows, name)
            heavy.add(_counted(words_of(column), found.fate(row, place), steps))
    hosts = pc.struct_field(pc.extract_regex(rows["url"].combine_chunks(), HOST), "host")
    hosts = pc.fill_null(pc.utf8_lower(hosts), NO_HOST)
    facts.hosts.add(_counted(hosts, row_codes, steps))
    facts.clusters.add(_counted(rows["cluster"].combine_chunks(), row_codes, steps))
    _add_inside(facts, found, row_codes)


def _add_rules(facts: Facts, found: Verdicts) -> None:
    """Count the thresholds and values of the rejections by each rule.

    The rejection of a row is not counted if items of the row (images or texts) were rejected too.
    """
    compared = np.isfinite(found.threshold) & np.isfinite(found.value)
    single = np.lexsort((-found.place, found.row))  # the items of a row, then the row itself
    keep = np.ones(len(found.code), bool)
    twin = (found.row[single][1:] == found.row[single][:-1]) & (found.place[single][1:] == WHOLE)
    keep[single[1:][twin]] = False
    for code, rule in enumerate(found.pairs):
        at = compared & keep & (found.code == code)
        if not at.any():
            continue
        judged = facts.rules.setdefault(rule, Judged())
        judged.values.add(found.value[at])
        levels, counts = np.unique(found.threshold[at], return_counts=True)
        judged.thresholds.update(dict(zip(levels.tolist(), counts.tolist(), strict=True)))
        gap = found.value[at] - found.threshold[at]
        judged.below += int((gap < 0).sum())
        judged.equal += int((gap == 0).sum())
        judged.above += int((gap > 0).sum())


def _add_score(by_rule: dict[Rule | None, NumberTally], facts: Facts, name: str, rows: pa.Table, found: Verdicts) -> None:
    value, row, place = values(rows, name)
    has = np.isfinite(value)
    value, row, place = value[has], row[has], place[has]
    fate = found.fate(row, place)
    for code in np.unique(fate).tolist():
        by_rule[found.pairs[code] if code >= 0 else None].add(value[fate == code])
    own = found.codes_at(row, place)
    verdict = _verdict_values(found, row, place)
    for code in np.unique(own[own >= 0]).tolist():
        judged = facts.rules.get(found.pairs[code])
        at = own == code
        if judged is not None and at.any():
            close = np.abs(value[at] - verdict[at]) <= SAME * np.maximum(np.abs(verdict[at]), 1)
            judged.equal_to[name] += int(close.sum())


def _verdict_values(found: Verdicts, row: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the value in each item's verdict, or NaN if the item was not rejected."""
    numbered = found._replace(code=np.arange(len(found.code)))
    at = numbered.codes_at(row, place)
    return np.where(at >= 0, found.value[np.maximum(at, 0)] if len(found.code) else np.nan, np.nan)


def _add_inside(facts: Facts, found: Verdicts, row_codes: np.ndarray) -> None:
    inside = (found.place != WHOLE) & (row_codes[found.row] < 0)
    for code, count in zip(*np.unique(found.code[inside], return_counts=True), strict=True):
        facts.inside[found.pairs[int(code)]] += int(count)


def _counted(names: pa.Array, codes: np.ndarray, steps: list[str]) -> list[tuple[str, str | None, int]]:
    """Count items by name and by the step that rejected them. Return (name, step, count). The step of kept items is None.

    `codes` holds the index of each item's step in `steps`, or -1 for a kept item. Items without a name are left out.
    """
    table = pa.table({"name": names, "code": codes}).filter(names.is_valid())
    sums = table.group_by(["name", "code"], use_threads=False).aggregate([([], "count_all")])
    lines = zip(*(sums[column].to_pylist() for column in ("name", "code", "count_all")), strict=True)
    return [(name, steps[code] if code >= 0 else None, count) for name, code, count in lines]
