"""The rows of a finished run as its last pass saw them, from what was committed: nothing is measured or fetched again.

Rejected images and their texts lie nowhere but in `work/`; a report shows a few of them. `work/parts.json` says which rows
of the ledger each part gave, and which decisions over all rows were in force.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from vlmdata import recipe as recipes
from vlmdata.engine.base import Store
from vlmdata.engine.calls import Job, PartCall
from vlmdata.engine.chain import Link, inputs
from vlmdata.engine.ledger import PARTS
from vlmdata.engine.openpart import OpenPart
from vlmdata.engine.partlog import PartLog
from vlmdata.engine.plan import RECORD as PLAN
from vlmdata.engine.records import WORK_FIX, Parts, read_record
from vlmdata.engine.worker import Worker
from vlmdata.row import alive, set_column
from vlmdata.step import RecipeError, scatter


class Replay(Worker):
    """A worker that only looks up: gives rows by their number in the ledger. The part read last is kept."""

    def __init__(self, job: Job, record: dict[str, Any]):
        super().__init__(job)
        self.record = record
        self.part: int | None = None
        self.held = pa.table({})

    def row(self, number: int) -> dict[str, Any]:
        """Return row `number` of the ledger with its images and texts."""
        for part, take, count in self.record["parts"]:
            if number < count:
                if part != self.part:
                    call = PartCall(part, take, len(self.links), tuple(self.record["decided"]))
                    self.part, self.held = part, self.rows(call)
                return self.held.slice(number, 1).to_pylist()[0]
            number -= count
        raise IndexError(f"the ledger has fewer rows: {number} too many")

    def _measured(
        self, rows: pa.Table, link: Link, opened: OpenPart, log: PartLog, fresh: dict[str, Any], again: tuple[str, ...]
    ) -> pa.Table:
        """Return the rows with the link's columns as the log has them; null where it has none."""
        have, stored = log.measured(str(link.measure), alive(rows), inputs(rows, link.step.columns_read()))
        for short, kind in link.step.writes.items():
            full = link.step.column(short)
            old = rows[full].combine_chunks() if full in rows.column_names else pa.nulls(len(rows), kind)
            rows = set_column(rows, full, old if stored is None else scatter(stored.field(short), have, old))
        return rows


def open_replay(store: Store, manifest: dict[str, Any]) -> Replay | None:
    """Return the replay of a dataset; None where `work/` is gone, or its recipe names files that are."""
    try:
        record = read_record(store, PARTS, Parts, WORK_FIX)
        store.size(PLAN)
        return Replay(Job(recipes.parse(manifest["recipe"]), str(store.url)), record)
    except (FileNotFoundError, RecipeError):
        return None
