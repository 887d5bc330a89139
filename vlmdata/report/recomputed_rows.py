"""Recomputes rows of a finished run from `work/`, without measuring or fetching. The rows are as in the run's last pass.

The report shows some of the rejected images and texts, which are stored only in `work/`. `work/parts.json` holds the number
of ledger rows of each partition, and the global decisions of the run.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from vlmdata import recipe as recipes
from vlmdata.engine.output.ledger import PARTS
from vlmdata.engine.partitions.calls import PartitionCall, RunJob
from vlmdata.engine.partitions.plan import RECORD as PLAN
from vlmdata.engine.store.json_shapes import WORK_FIX, PartitionsRecord, read_record
from vlmdata.engine.store.store_protocol import Store
from vlmdata.engine.work.worker import Worker
from vlmdata.step import RecipeError


class RecomputedRows:
    """Returns rows by their number in the ledger, using a worker that does not measure. The last partition is cached."""

    def __init__(self, job: RunJob, record: dict[str, Any]):
        self.worker = Worker(job, measures=False)
        self.record = record
        self.partition: int | None = None
        self.cached = pa.table({})

    def row(self, number: int) -> dict[str, Any]:
        """Return row `number` of the ledger with its images and texts."""
        for partition, take, count in self.record["parts"]:
            if number < count:
                if partition != self.partition:
                    call = PartitionCall(partition, take, len(self.worker.bound_steps), tuple(self.record["decided"]))
                    self.partition, self.cached = partition, self.worker.compute(call)
                return self.cached.slice(number, 1).to_pylist()[0]
            number -= count
        raise IndexError(f"the row number exceeds the last row of the ledger by {number + 1}")


def open_recomputed(store: Store, manifest: dict[str, Any]) -> RecomputedRows | None:
    """Return a dataset's recomputed rows, or None if `work/` or a file that the recipe names is missing."""
    try:
        record = read_record(store, PARTS, PartitionsRecord, WORK_FIX)
        store.size(PLAN)
        return RecomputedRows(RunJob(recipes.parse(manifest["recipe"]), str(store.url)), record)
    except (FileNotFoundError, RecipeError):
        return None
