"""The rows of a finished run as its last pass saw them, from what was committed: nothing is measured or fetched again.

Rejected images and their texts lie nowhere but in `work/`; a report shows a few of them. `work/partitions.json` says which rows
of the ledger each partition gave, and which decisions over all rows were in force.
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
    """Gives rows by their number in the ledger, from a worker that measures nothing. The partition read last is kept."""

    def __init__(self, job: RunJob, record: dict[str, Any]):
        self.worker = Worker(job, measures=False)
        self.record = record
        self.partition: int | None = None
        self.held = pa.table({})

    def row(self, number: int) -> dict[str, Any]:
        """Return row `number` of the ledger with its images and texts."""
        for partition, take, count in self.record["parts"]:
            if number < count:
                if partition != self.partition:
                    call = PartitionCall(partition, take, len(self.worker.bound_steps), tuple(self.record["decided"]))
                    self.partition, self.held = partition, self.worker.compute(call)
                return self.held.slice(number, 1).to_pylist()[0]
            number -= count
        raise IndexError(f"the ledger has fewer rows: {number} too many")


def open_recomputed(store: Store, manifest: dict[str, Any]) -> RecomputedRows | None:
    """Return the replay of a dataset; None where `work/` is gone, or its recipe names files that are."""
    try:
        record = read_record(store, PARTS, PartitionsRecord, WORK_FIX)
        store.size(PLAN)
        return RecomputedRows(RunJob(recipes.parse(manifest["recipe"]), str(store.url)), record)
    except (FileNotFoundError, RecipeError):
        return None
