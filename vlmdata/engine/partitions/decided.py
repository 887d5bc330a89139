"""The worker's part in global decisions: it selects the columns that a decision needs, and applies decisions to a partition."""

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
GROUP_ROWS = 20_000  # number of rows in a row group of a decision's file

Columns = dict[str, tuple[str, ...]]  # column -> the fields to select from its items; an empty tuple selects the whole column


def narrowed(rows: pa.Table, columns: Columns) -> pa.Table:
    """Return only these columns of the rows, and only these fields of `images` and `texts`. Missing columns are left out."""
    found = {}
    for name, fields in columns.items():
        if name in rows.column_names:
            found[name] = select_fields(rows, name, fields) if fields else rows[name]
    return pa.table(found)


class Decided:
    """Applies global decisions to partitions. Thread-safe.

    The rows of a decision's file are in the order of partitions, and a worker processes partitions in about this order. The row
    group that was read last is cached, so a worker reads a file about once instead of once for each partition.
    """

    def __init__(self, store: Store):
        self._store = store
        self._files: dict[str, _DecisionFile] = {}
        self._lock = threading.Lock()

    def apply(self, rows: pa.Table, name: str, partition: int) -> pa.Table:
        """Return a partition's rows with the changes of a decision. Raises RecipeError for a damaged file."""
        with self._lock:
            if name not in self._files:
                try:
                    self._files[name] = _DecisionFile(self._store.open(name))
                except pa.ArrowException as error:
                    raise damage(self._store, name, error) from None
            table = self._files[name].read(partition)
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


class _DecisionFile:
    """Reads the changes in one partition from the file of a global decision, without reading the whole file.

    The statistics of the first column, `part`, say which row groups to read.
    """

    def __init__(self, file: Any):
        self._file = pq.ParquetFile(file)
        found = self._file.metadata
        spans = [bounds(found, number) for number in range(found.num_row_groups) if found.num_rows]
        self._first, self._last = np.array(spans, np.int64).reshape(-1, 2).T
        self._number = -1  # number of the cached row group
        self._group = pa.table({})

    def read(self, partition: int) -> pa.Table:
        """Return the changes in one partition, or a table without columns if there are none."""
        numbers = range(np.searchsorted(self._last, partition), np.searchsorted(self._first, partition, "right"))
        tables = [self._read_from(number, partition) for number in numbers]
        return pa.concat_tables(tables).combine_chunks() if tables else pa.table({})

    def _read_from(self, number: int, partition: int) -> pa.Table:
        """Return the part of row group `number` that holds changes of one partition."""
        if number != self._number:
            self._group = self._file.read_row_group(number, use_threads=False).combine_chunks()
            self._number = number
        partitions = self._group["part"].to_numpy()
        start, stop = np.searchsorted(partitions, [partition, partition + 1])
        return self._group.slice(start, stop - start)


def _merged(rows: pa.Table, changed: pa.Table, column: str, where: np.ndarray) -> pa.ListArray:
    """Return `images` or `texts` of all rows, with new values in the rows where `where` (N,) is true.

    `changed` holds only these rows, and only the fields that changed.
    """
    old, new = flatten(rows, column), flatten(changed, column)
    at = where[old.parents]
    known = {field.name for field in new.items.type}
    kind = old.items.type
    fields = [scatter(new.field(f.name), at, old.field(f.name)) if f.name in known else old.field(f.name) for f in kind]
    return old.rebuild(pa.StructArray.from_arrays(fields, fields=list(kind), mask=old.items.is_null()))


def select_fields(rows: pa.Table, column: str, fields: tuple[str, ...]) -> pa.ListArray:
    """Return `images` or `texts` with only these fields of each item."""
    flat = flatten(rows, column)
    arrays = [flat.field(name) for name in fields]
    return flat.rebuild(pa.StructArray.from_arrays(arrays, names=list(fields), mask=flat.items.is_null()))
