"""Explains why a dataset has hardly any rows: which steps took them, which rows were nearest, and which setting keeps them.

The explanation comes from the manifest, from the verdicts in the ledger, and from what steps and failures declare
(`Step.limits`, `web/outcomes.py`). The ledger is read once, in ranges, and only the nearest rows are kept.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata import catalog
from vlmdata.engine.output.ledger import ledger_files
from vlmdata.engine.output.manifest import step_entries
from vlmdata.engine.store.store_protocol import Store
from vlmdata.engine.work.fit import LABEL, Fit
from vlmdata.report.read_ledger import ranges
from vlmdata.report.scan_ledger import HOST
from vlmdata.row import flatten
from vlmdata.step import RecipeError, Step
from vlmdata.steps.download import Download
from vlmdata.steps.resize import Resize
from vlmdata.web.outcomes import is_fetch_failure

FEW_ROWS = 10  # fewer kept rows are hardly any, if they are also less than a tenth
SOURCE = "source"  # the name of the source, as a step that drops rows
STEPS = 2
REASONS = 3  # explained for each step
NEAREST = 3  # rows shown for each reason
HOSTS = 10_000  # counted; rarer hosts are discarded


class Near(NamedTuple):
    """A rejected row: the distance of its value to the threshold, its key, value, threshold, address, place and problem."""

    distance: float
    key: str
    value: float | None
    threshold: float | None
    url: str | None
    place: str | None
    problem: str | None


@dataclass
class Loss:
    """What one step took. `before` is the number of rows that reached it. The reasons are in the order of their rows."""

    step: str
    rows: int
    before: int
    reasons: list[tuple[str | None, int]]
    parameters: dict[str, Any]  # of the step, or of the source, in the recipe
    cls: type[Step] | None  # None for the source, and for a user's step that is not imported
    nearest: dict[str | None, list[Near]] = field(default_factory=dict)
    hosts: dict[str | None, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    @property
    def fetches(self) -> bool:
        """Whether the step fetches from the web."""
        return self.cls is not None and issubclass(self.cls, Download)

    @property
    def decodes(self) -> bool:
        """Whether the step decodes the fetched images."""
        return self.cls is not None and issubclass(self.cls, Download | Resize)


def are_hardly_any(kept: int, rows: int) -> bool:
    """Return whether so few rows were kept that the user should learn why.

    That is none, or fewer than 1 % of the rows, or fewer than 10 rows that are also fewer than 10 % of the rows.
    """
    return kept < rows and (kept == 0 or kept * 100 < rows or (kept < FEW_ROWS and kept * 10 < rows))


def find_losses(store: Store, manifest: dict[str, Any]) -> list[Loss]:
    """Return the two steps that took most rows, with the rows nearest to their thresholds. Reads the ledger once."""
    found = _steps_that_took_most(manifest)
    columns = {"key", "url", "step", "reason", "value", "threshold", "place", "problem"}
    columns |= {"images"} if any(loss.fetches for loss in found) else set()
    for _, rows in ranges(store, ledger_files(manifest), sorted(columns)):
        for loss in found:
            _add(loss, rows.filter(pc.fill_null(pc.equal(rows["step"], loss.step), False)))
    return found


def _steps_that_took_most(manifest: dict[str, Any]) -> list[Loss]:
    named = {label: (name, parameters) for name, parameters, label in step_entries(manifest["recipe"])}
    found: dict[str, Loss] = {}
    left = manifest["rows"]
    for line in manifest["dropped"]:  # in the order of the recipe
        if line["step"] not in found:
            name, parameters = named.get(line["step"], ("", {}))
            if line["step"] in (LABEL, SOURCE):
                parameters = manifest["recipe"]["shards" if line["step"] == LABEL else SOURCE]
            found[line["step"]] = Loss(line["step"], 0, left, [], parameters, _class_of(line["step"], name))
        loss = found[line["step"]]
        loss.reasons.append((line["reason"], line["rows"]))
        loss.rows += line["rows"]
        left -= line["rows"]
    return sorted(found.values(), key=lambda loss: -loss.rows)[:STEPS]


def _class_of(step: str, name: str) -> type[Step] | None:
    """Return the class of a step. A user's module is never imported here, because that would run code that a dataset names."""
    if step == LABEL:
        return Fit
    if "." in name:
        module, _, attribute = name.rpartition(".")
        cls = getattr(sys.modules.get(module), attribute, None)
        return cls if isinstance(cls, type) and issubclass(cls, Step) else None
    try:
        return catalog.find("steps", name) if name else None
    except RecipeError:  # a step of another version of vlmdata
        return None


def _add(loss: Loss, rows: pa.Table) -> None:
    for reason, _ in loss.reasons[:REASONS] if len(rows) else ():
        is_own = pc.is_null(rows["reason"]) if reason is None else pc.fill_null(pc.equal(rows["reason"], reason), False)
        own = rows.filter(is_own)
        value, threshold = (pc.fill_null(own[name].combine_chunks(), np.nan).to_numpy() for name in ("value", "threshold"))
        distance = np.nan_to_num(np.abs(value - threshold), nan=np.inf, posinf=np.inf)
        few = own.take(np.argsort(distance, kind="stable")[:NEAREST]).to_pylist()
        near = [
            Near(_gap(one), *(one.get(name) for name in ("key", "value", "threshold", "url", "place", "problem")))
            for one in few
        ]
        loss.nearest[reason] = sorted([*loss.nearest.get(reason, []), *near], key=lambda one: one[:2])[:NEAREST]
    if loss.fetches and len(rows):
        _add_hosts(loss, rows)


def _gap(row: dict[str, Any]) -> float:
    known = row["value"] is not None and row["threshold"] is not None
    return abs(row["value"] - row["threshold"]) if known else float("inf")


def _add_hosts(loss: Loss, rows: pa.Table) -> None:
    images = flatten(rows, "images")
    reasons, urls = images.field("reason"), images.field("url")
    for reason, _ in loss.reasons[:REASONS]:
        if reason and is_fetch_failure(reason):
            own = urls.filter(pc.fill_null(pc.equal(reasons, reason), False))
            hosts = pc.utf8_lower(pc.struct_field(pc.extract_regex(own, HOST), "host"))
            counts = pc.value_counts(hosts.drop_null())
            counter = loss.hosts[reason]
            counter.update({pair["values"]: pair["counts"] for pair in counts.to_pylist()})
            if len(counter) > HOSTS:
                loss.hosts[reason] = Counter(dict(counter.most_common(HOSTS // 4)))
