"""The worker: it runs a partition through bound steps of the recipe and commits the measured values.

The same code runs in a local process and in a Ray actor. Several partitions may be open at once, each in its own thread.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vlmdata.engine.forget import erase
from vlmdata.engine.output.ledger import ledger_rows
from vlmdata.engine.output.ledger import write as write_ledger
from vlmdata.engine.output.pack import pack
from vlmdata.engine.output.sample import samples
from vlmdata.engine.partitions import answer_journal, tombstones
from vlmdata.engine.partitions.calls import PartitionCall, RunJob
from vlmdata.engine.partitions.decided import Columns, Decided, narrowed
from vlmdata.engine.partitions.partition_log import PartitionLog
from vlmdata.engine.partitions.pieces import keep_piece
from vlmdata.engine.partitions.plan import load
from vlmdata.engine.partitions.tombstones import TAKEN_DOWN
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.work.compile_recipe import BoundStep, compile_recipe, inputs
from vlmdata.engine.work.ingest import Ingest
from vlmdata.engine.work.open_partition import Keep, OpenPartition
from vlmdata.engine.work.own_steps import measured, read_source, run_step
from vlmdata.engine.work.read_source import piece_rows
from vlmdata.engine.work.source_files import SourceFiles, local_path
from vlmdata.row import ROW, alive, keep_verdicts, set_column
from vlmdata.step import Step, scatter


class Worker:
    """Executes the driver's calls on partitions. It keeps models and connections between calls.

    With `measures=False` it only reads the logs: missing values stay null, and nothing is fetched or committed.
    """

    def __init__(self, job: RunJob, rate_limiter: Any = None, *, measures: bool = True):
        self.job = job
        self.measures = measures
        self.store = open_store(job.out, probe=False, is_worker=True)  # the driver has already probed the store
        self.bound_steps: list[BoundStep] = compile_recipe(job.recipe)
        self.keep = Keep()
        self.decided = Decided(self.store)
        self.decoding = threading.Lock()  # one image at a time, because a worker has one core, and pixels take most memory
        self.rate_limiter = rate_limiter
        plan = load(self.store)
        assert plan is not None, "the plan is written before any worker starts"
        self.plan = plan
        self.tombstones = tombstones.load(self.store, job.recipe)

    def close(self) -> None:
        """Close connections and release models."""
        self.keep.close()

    def advance(
        self, call: PartitionCall, again: tuple[str, ...] = (), guilty: tuple[int, ...] = (), journal: str = ""
    ) -> dict[str, Any]:
        """Run a partition's steps and commit new measurements. Return counts as a dict.

        The counts are the numbers of rows (`rows`), of rows not dropped (`alive`), of drops by step and reason (`dropped`), of
        rows measured now by step (`measured`), and of bytes of new images (`bytes`), and by step the sums of `Step.spent`
        (`spent`), and the same sums for the rows measured now (`asked`). The worker retries images and answers that failed for
        a reason in `again`. It skips the images at the positions `guilty`, which kill the decoder. In the file `journal`, it
        records the image that it is decoding, so that the driver can find an image that kills the worker.
        """
        opened = self._open(call.partition)
        opened.guilty = frozenset(guilty)
        if not journal:
            rows = self.compute(call, opened, again)
        else:
            with Path(journal).open("w+") as opened.journal_file:
                rows = self.compute(call, opened, again)
        is_alive = alive(rows)
        dead = rows.filter(pa.array(~is_alive)).select(["drop", "reason"]).to_pylist()
        dropped = Counter(f"{row['drop']}: {row['reason'] or 'dropped'}" for row in dead)
        counts = {"rows": len(rows), "alive": int(is_alive.sum()), "dropped": dict(dropped), "bytes": opened.blob.size}
        titles = {bound.measure: _title(bound.step) for bound in self.bound_steps}
        counts["measured"] = {titles[name]: rows for name, rows in opened.measured.items()}
        counts["spent"] = {bound.step.name: found for bound in self.bound_steps if (found := _spent(bound, rows))}
        fresh = [
            (bound, rows.filter(opened.fresh[name])) for bound in self.bound_steps if (name := bound.measure) in opened.fresh
        ]
        return counts | {"asked": {bound.step.name: found for bound, some in fresh if (found := _spent(bound, some))}}

    def project(self, call: PartitionCall, columns: Columns) -> pa.Table:
        """Return these columns of a partition.

        Two int32 columns are added: `part`, the number of the partition, and `row`, the number of the row.
        """
        table = narrowed(self.compute(call), columns)
        table = set_column(table, "part", pa.array(np.full(len(table), call.partition, dtype=np.int32)))
        return set_column(table, "row", pa.array(np.arange(len(table), dtype=np.int32)))

    def piece(self, call: PartitionCall, columns: Columns, number: int) -> tuple[pa.Table, dict[str, str]]:
        """Return one partition's input for a distributed global decision: a table of rows, and {array name: path}.

        The step makes the rows and the arrays from the result of `project`. The arrays are stored where every worker can read
        them, for the search of the decision. `number` is the position of the step in the compiled recipe.
        """
        step = self.bound_steps[number].step
        table, arrays = run_step(step, step.piece, self.project(call, columns))
        return table, {name: keep_piece(self.store, array) for name, array in arrays.items()}

    def search(self, number: int, function: Callable[[Any], Any], task: Any) -> Any:
        """Run one task of a global decision that is distributed over the workers (`similarity/distributed.py`)."""
        return function(task)

    def compute(self, call: PartitionCall, opened: OpenPartition | None = None, again: tuple[str, ...] = ()) -> pa.Table:
        """Return a partition's rows after `call.upto` steps, with all columns. Missing values are measured and committed."""
        while True:
            opened = opened or self._open(call.partition)
            opened.again = again
            log = PartitionLog(self.store, call.partition)
            known = len(log.entries)
            rows, fresh = self._run_steps(call, opened, log, again)
            opened.measured = {name: len(values) - values.null_count for name, values in fresh.items()}
            opened.fresh = {name: values.is_valid() for name, values in fresh.items()}
            if fresh:
                self._at_source_file(SourceFiles.check, call.partition)  # it may hold the images
            columns = {"row": pa.array(np.arange(len(rows), dtype=np.int32)), **fresh}
            if not fresh or log.commit(pa.table(columns), sorted(fresh), opened.blob.close()):
                for name in opened.asked:
                    answer_journal.delete(self.store, name, call.partition)
                if len(log.entries) > known:
                    self._erase_late_takedowns(call.partition, rows)
                return rows
            opened = None  # another worker committed first: read its entry

    def _read_piece(self, partition: int, log: PartitionLog) -> pa.Table:
        """Return the rows of a partition of an archive. If the log does not hold them, they are read and committed."""
        source = self.job.recipe.source
        piece = self.plan.piece(partition, source)
        self._at_source_file(SourceFiles.note, partition)
        check = functools.partial(self._at_source_file, SourceFiles.check, partition)
        return read_source(source, lambda: piece_rows(self.store, source, piece, log, self.tombstones, check))

    def _at_source_file(self, act: Callable[[SourceFiles, str], None], partition: int) -> None:
        """Note or check the local file that a partition of an archive reads, if there is one."""
        source = self.job.recipe.source
        path = None if self.plan.is_list or not self.measures else local_path(source, self.plan.piece(partition, source))
        if path is not None:
            act(self.keep.get("source files", lambda: SourceFiles(self.store, source, self.plan.source)), path)

    def _erase_late_takedowns(self, partition: int, rows: pa.Table) -> None:
        """Erase rows that were taken down after this worker read the tombstones and before it committed.

        If there was such a takedown, raises OSError after erasing. A lock keeps runs and takedowns apart, but the worker of a
        killed driver may still run for a moment. The worker commits, then checks for takedowns. A takedown writes its record,
        then checks for commits. So at least one of them sees the other.
        """
        if not self._is_current():
            gone = tombstones.load(self.store).apply(rows)["drop"].to_numpy(zero_copy_only=False) == tombstones.STEP
            erase.erase_partition(self.store, partition, np.flatnonzero(gone).tolist())
            raise OSError(TAKEN_DOWN)

    def _open(self, partition: int) -> OpenPartition:
        return OpenPartition(self.store, partition, self.keep, self.decoding, self.rate_limiter, self.tombstones, self.job.run)

    def _run_steps(
        self, call: PartitionCall, opened: OpenPartition, log: PartitionLog, again: tuple[str, ...]
    ) -> tuple[pa.Table, dict[str, pa.StructArray]]:
        """Run the call's steps on its partition. Return the rows with the steps' decisions, and the values that were measured.

        Only values that the log does not have are measured.
        """
        fresh: dict[str, pa.StructArray] = {}
        if self.plan.is_list:
            rows = self.plan.read_partition(self.store, call.partition)
        else:
            rows = self._read_piece(call.partition, log)
        rows = rows.slice(0, call.take)
        decided = iter(call.decided)
        if not self.plan.is_list and call.decided:  # the first decision makes keys unique across partitions
            rows = self.decided.apply(rows, next(decided), call.partition)
        rows = self.tombstones.apply(rows)
        with ExitStack() as undo:
            undo.callback(opened.blob.discard)
            for bound in self.bound_steps[: call.upto]:
                if bound.step.sees_all:
                    rows = self.decided.apply(rows, next(decided), call.partition)
                    continue
                if bound.measure:
                    rows = self._with_measurements(rows, bound, opened, log, fresh, again)
                if "images" in bound.step.columns_written():  # new pictures, with new perceptual hashes
                    rows = self.tombstones.apply(rows)
                rows = run_step(bound.step, bound.step.decide, rows)
            undo.pop_all()
        return rows, fresh

    def _with_measurements(
        self,
        rows: pa.Table,
        bound: BoundStep,
        opened: OpenPartition,
        log: PartitionLog,
        fresh: dict[str, Any],
        again: tuple[str, ...],
    ) -> pa.Table:
        """Return the rows with the columns that the step measures. Values that the log does not have are measured now."""
        step, name = bound.step, str(bound.measure)
        wanted, writes = alive(rows), step.columns_written()
        present = inputs(rows, step.columns_read())
        have, stored = log.measured(name, wanted, present, writes)
        missing = wanted & ~have & self.measures
        columns = {}
        for short in writes:
            full = step.column(short)
            old = rows[full] if full in rows.column_names else pa.nulls(len(rows), writes[short])
            columns[full] = old if stored is None else scatter(stored.field(short), have, old)
        before = rows
        if again and stored is not None:
            missing |= have & step.failed(_with_columns(rows, columns), again)
            own = {full: values for full, values in columns.items() if full not in ROW.names}
            before = _with_columns(rows, own)  # so that the step repeats only the parts of a row that failed
        if missing.any():
            opened.measuring = name
            found = measured(step, before.filter(pa.array(missing)), opened)
            arrays = [scatter(found[short], missing, None) for short in writes]
            names = ["input", *writes]
            fresh[name] = pa.StructArray.from_arrays([pa.array(present), *arrays], names=names, mask=pa.array(~missing))
            for short in writes:
                full = step.column(short)
                columns[full] = scatter(found[short], missing, columns[full])
        if "images" in columns:
            columns["images"] = keep_verdicts(columns["images"], rows)
        return _with_columns(rows, columns)

    def pack(self, number: int, pieces: list[tuple[PartitionCall, int, int]]) -> dict[str, Any]:
        """Write shard `number` and return its record.

        `pieces` are partitions, each with the range [start, stop) of its kept rows that go into the shard.
        """
        layout = self.job.recipe.shards.layout
        chosen = [sample for call, start, stop in pieces for sample in samples(self.compute(call), layout, start, stop)]
        return pack(self.store, number, chosen, self._is_current)

    def ledger(self, number: int, calls: list[tuple[PartitionCall, int]]) -> dict[str, Any]:
        """Write file `number` of the ledger and return its record.

        `calls` are partitions, each with the number of kept rows in all earlier partitions.
        """
        per_shard = self.job.recipe.shards.samples
        tables = [ledger_rows(self.compute(call), before, per_shard) for call, before in calls]
        written = write_ledger(self.store, number, tables, self._is_current)
        partitions = [] if self.plan.is_list else [PartitionLog(self.store, call.partition) for call, _ in calls]
        return {**written, "others": sum((Counter(log.others()) for log in partitions), Counter())}

    def _is_current(self) -> bool:
        return tombstones.are_all(self.store, self.tombstones)


def _with_columns(rows: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, values in columns.items():
        rows = set_column(rows, name, values)
    return rows


def _spent(bound: BoundStep, rows: pa.Table) -> dict[str, float]:
    """Return what the step's stored measurements took, or an empty dict before the step has run."""
    columns = [bound.step.column(name) for name in bound.step.columns_written()]
    return run_step(bound.step, bound.step.spent, rows) if columns and set(columns) <= set(rows.column_names) else {}


def _title(step: Step) -> str:
    """Return the name of a step in the log of a run. `download` and `resize`, which are one bound step, keep their names."""
    if not isinstance(step, Ingest):
        return step.name
    return " + ".join(one.name for one in (step.download, step.resize) if one) or step.name
