"""Global decisions in a worker: it returns columns of a partition, and applies to a partition what was decided."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.engine.store.parquet_files import bounds, damage
from vlmdata.engine.store.store_protocol import Store
from vlmdata.row import flatten, set_column
from vlmdata.step import scatter

ITEMS = ("images", "texts")
STRETCH = 20_000  # lines of a decision that are read at once: a row group of its file

Columns = dict[str, tuple[str, ...]]  # column -> fields of its items, in their order; none: the column as it is


def narrowed(rows: pa.Table, columns: Columns) -> pa.Table:
    """Return these columns of the rows, items with these fields alone; columns that there are not are left out."""
    found = {}
    for name, fields in columns.items():
        if name in rows.column_names:
            found[name] = select_fields(rows, name, fields) if fields else rows[name]
    return pa.table(found)


class Decided:
    """Decisions over all rows as a worker applies them, to one partition after another. Threads may share it.

    A file holds its lines in the order of the partitions, and neighbouring partitions are processed one after the other: the
    stretch read last is kept, so that a worker reads a file once and not once for each partition.
    """

    def __init__(self, store: Store):
        self._store = store
        self._files: dict[str, _Lines] = {}
        self._lock = threading.Lock()

    def apply(self, rows: pa.Table, name: str, partition: int) -> pa.Table:
        """Return a partition's rows with what a decision changed among them."""
        with self._lock:
            if name not in self._files:
                try:
                    self._files[name] = _Lines(self._store.open(name))
                except pa.ArrowException as error:
                    raise damage(self._store, name, error) from None
            table = self._files[name].of(partition)
        if not len(table):
            return rows
        where = np.zeros(len(rows), dtype=bool)
        index = table["row"].to_numpy()
        where[index[index < len(rows)]] = True
        table = table.take(pc.sort_indices(table, [("row", "ascending")])).slice(0, int(where.sum()))
        for column in table.column_names:
            if column in ITEMS:
                rows = set_column(rows, column, _merged(rows, table, column, where))
            elif column not in ("part", "row"):
                rows = set_column(rows, column, scatter(table[column].combine_chunks(), where, rows[column]))
        return rows


class _Lines:
    """The lines of one decision by partition. The file itself says which values its first column, `part`, has in a stretch."""

    def __init__(self, file: Any):
        self._file = pq.ParquetFile(file)
        found = self._file.metadata
        spans = [bounds(found, number) for number in range(found.num_row_groups) if found.num_rows]
        self._first, self._last = np.array(spans, np.int64).reshape(-1, 2).T
        self._number = -1  # of the stretch that is kept
        self._held = pa.table({})

    def of(self, partition: int) -> pa.Table:
        numbers = range(np.searchsorted(self._last, partition), np.searchsorted(self._first, partition, "right"))
        return (
            pa.concat_tables([self._in(number, partition) for number in numbers]).combine_chunks() if numbers else pa.table({})
        )

    def _in(self, number: int, partition: int) -> pa.Table:
        if number != self._number:
            self._held = self._file.read_row_group(number, use_threads=False).combine_chunks()
            self._number = number
        partitions = self._held["part"].to_numpy()
        start, stop = np.searchsorted(partitions, [partition, partition + 1])
        return self._held.slice(start, stop - start)


def _merged(rows: pa.Table, changed: pa.Table, column: str, where: np.ndarray) -> pa.ListArray:
    """Return `images` or `texts` with the fields that a decision kept for the rows where it changed something."""
    old, new = flatten(rows, column), flatten(changed, column)
    at = where[old.parents]
    known = {field.name for field in new.items.type}
    kind = old.items.type
    fields = [scatter(new.field(f.name), at, old.field(f.name)) if f.name in known else old.field(f.name) for f in kind]
    return old.rebuild(pa.StructArray.from_arrays(fields, fields=list(kind), mask=old.items.is_null()))


def select_fields(rows: pa.Table, column: str, fields: tuple[str, ...]) -> pa.ListArray:
    """Return `images` or `texts` with these fields alone."""
    flat = flatten(rows, column)
    arrays = [flat.field(name) for name in fields]
    return flat.rebuild(pa.StructArray.from_arrays(arrays, names=list(fields), mask=flat.items.is_null()))
