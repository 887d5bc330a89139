"""Decisions over all rows: made once by the driver on a few columns, kept in a file, applied by whoever needs the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.engine import keys
from vlmdata.engine.store import Store
from vlmdata.row import alive, set_column
from vlmdata.step import Step, scatter

VERDICT = ["drop", "reason", "value", "threshold", "cluster"]
SLICE = 512


def columns_for(step: Step) -> tuple[str, ...]:
    """Return the columns a step over all rows is shown: what it reads, the key and the verdict so far."""
    return tuple(dict.fromkeys(["key", *VERDICT, *step.columns_read(), *step.changes]))


def decide(step: Step, tables: Iterable[pa.Table], store: Store) -> str:
    """Let a step decide over all rows and return the name of the file that holds what it changed.

    The file is named by its content, so the same decision has the same name, however often it is made.
    """
    before = pa.concat_tables(list(tables)).combine_chunks()
    after = step.decide(before)
    assert len(after) == len(before), f"{step.name} must return the rows it was given"
    changed = alive(before) & ~alive(after)
    names = list(dict.fromkeys([*VERDICT, *step.changes]))
    for column in dict.fromkeys(["cluster", *step.changes]):
        changed |= _differs(before[column], after[column])
    table = after.select(["part", "row", *names]).filter(pa.array(changed))
    return _keep(table, step.name, store)


def number_repeats(tables: list[pa.Table], store: Store) -> str:
    """Give rows whose key an earlier part of an archive has too the next free number. Returns the file that says so."""
    table = pa.concat_tables(tables).combine_chunks()
    bare = [key.split("_")[0] for key in table["key"].to_pylist()]
    numbered = pa.array(keys.number_repeats(bare), pa.string())
    table = table.set_column(table.column_names.index("key"), "key", numbered)
    changed = pc.not_equal(numbered, pa.concat_tables(tables)["key"].combine_chunks())
    return _keep(table.select(["part", "row", "key"]).filter(changed), "keys", store)


def _keep(table: pa.Table, name: str, store: Store) -> str:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=100_000)
    data = sink.getvalue().to_pybytes()
    file = f"work/decisions/{name}-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    store.put_new(file, data)
    return file


def apply(rows: pa.Table, store: Store, name: str, part: int) -> pa.Table:
    """Return a part's rows with what a decision changed among them."""
    data = pa.BufferReader(store.read(name))
    table = pq.read_table(data, filters=[("part", "=", part)]).combine_chunks()
    if not len(table):
        return rows
    where = np.zeros(len(rows), dtype=bool)
    index = table["row"].to_numpy()
    where[index[index < len(rows)]] = True
    table = table.take(pc.sort_indices(table, [("row", "ascending")])).slice(0, int(where.sum()))
    for column in table.column_names:
        if column not in ("part", "row"):
            rows = set_column(rows, column, scatter(table[column].combine_chunks(), where, rows[column]))
    return rows


def _differs(before: pa.ChunkedArray, after: pa.ChunkedArray) -> np.ndarray:
    """Say for each row whether a column changed; slices that are equal as a whole are not looked into."""
    differs = np.zeros(len(before), dtype=bool)
    for start in range(0, len(before), SLICE):
        old, new = before.slice(start, SLICE), after.slice(start, SLICE)
        if not old.equals(new):
            differs[start : start + SLICE] = [a != b for a, b in zip(old.to_pylist(), new.to_pylist(), strict=True)]
    return differs
