"""Global decisions. The driver makes a global decision once, from a few columns of all rows, and stores it in a file.

The workers then apply the decision in that file to their partitions.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.engine.drive.driver import Driver
from vlmdata.engine.partitions import keys
from vlmdata.engine.partitions.calls import PartitionCall
from vlmdata.engine.partitions.decided import GROUP_ROWS, ITEMS, Columns, select_fields
from vlmdata.engine.partitions.pieces import clear_pieces, keep_piece
from vlmdata.engine.store.store_protocol import Store
from vlmdata.engine.work.own_steps import run_step
from vlmdata.row import ROW, alive, flatten, in_one
from vlmdata.step import DistributedSearch, Step

VERDICT = ["drop", "reason", "value", "threshold", "cluster"]
ITEM_VERDICT = VERDICT[:-1]  # fields of `images` and `texts` that every step gets
SLICE = 512
TABLES_AT_ONCE = 64  # number of tables, one for each partition, that are joined at once


def columns_for(step: Step) -> Columns:
    """Return the columns that a global decision gets: the key, the verdict so far, and the columns that the step reads.

    The verdict is `drop`, `reason`, `value`, `threshold` and `cluster`. If a step reads only some fields of `images` or
    `texts`, the decision gets these fields and the verdict on each image or text. If a step changes `images` or `texts` without
    reading that column, the decision gets all fields of the column.
    """
    read = step.columns_read()
    narrow: dict[str, set[str]] = {}
    for name in read:
        column, _, field = name.partition(".")
        if column in ITEMS and field:
            narrow.setdefault(column, {*ITEM_VERDICT}).add(field)
    columns: Columns = {}
    for name in dict.fromkeys(["key", *VERDICT, *read, *step.columns_changed()]):
        column = name.partition(".")[0] if name.partition(".")[0] in ITEMS else name
        whole = column in read or column not in narrow
        columns[column] = () if whole else tuple(f.name for f in ROW.field(column).type.value_type if f.name in narrow[column])
    return columns


def decide_globally(step: Step, number: int, calls: Sequence[PartitionCall], total: int, driver: Driver, store: Store) -> str:
    """Make a step's global decision over all rows. Return the name of the file that holds the decision.

    `number` is the position of the step in the compiled recipe. `calls` says how workers compute the rows of each partition,
    and `total` is the number of rows of all partitions. If `total` exceeds `step.distribute_above`, the decision is distributed
    over the workers.
    """
    columns = columns_for(step)
    if not step.distribute_above or total <= step.distribute_above:
        projected = driver.map("project", [(call, columns) for call in calls], together=1)
        return decide(step, _in_order(projected, calls), store)
    clear_pieces(store)  # remove the arrays of a killed run
    made = driver.map("piece", [(call, columns, number) for call in calls], together=1)
    names: list[dict[str, Any]] = []

    def tables() -> Iterator[pa.Table]:
        for table, kept in _in_order(made, calls):
            names.append(kept)
            yield table

    search = DistributedSearch(names, _run_on(driver), lambda array: keep_piece(store, array))
    name = decide(step, tables(), store, lambda rows: step.decide_distributed(rows, search))
    clear_pieces(store)
    return name


def decide(step: Step, tables: Iterable[pa.Table], store: Store, how: Callable[[pa.Table], pa.Table] | None = None) -> str:
    """Make the decision of a step over all rows. Return the name of the file that holds the changed rows.

    `how` replaces the step's `decide`. The file's name contains a hash of its content, so a repeated decision gets the same
    name.
    """
    before = joined(tables)
    after = run_step(step, how or step.decide, before)
    assert len(after) == len(before), f"{step.name} must return the rows that it was given"
    names = list(dict.fromkeys(["part", "row", *VERDICT, *step.columns_changed()]))
    changed = alive(before) & ~alive(after)
    fields: Columns = {}
    for column in dict.fromkeys(["cluster", *step.columns_changed()]):
        differs, fields[column] = _differences(before, after, column)
        changed |= differs
    kept = {name: select_fields(after, name, fields[name]) if fields.get(name) else after[name] for name in names}
    kept = {name: values for name, values in kept.items() if name not in ITEMS or fields[name]}
    return _keep(pa.table(kept).filter(pa.array(changed)), step.name, store)


def joined(tables: Iterable[pa.Table]) -> pa.Table:
    """Concatenate tables into one table with contiguous columns. At the peak, memory holds the rows once, and one column twice.

    Tables from a pipe consist of small buffers, whose memory does not return to the system after use. Copying a few tables at a
    time limits the number of such buffers.
    """
    groups: list[pa.Table] = []
    few: list[pa.Table] = []
    for table in tables:
        few.append(table)
        if len(few) == TABLES_AT_ONCE:
            groups.append(pa.concat_tables(few).combine_chunks())
            few.clear()
    whole = pa.concat_tables([*groups, *few])
    del groups, few
    for place, name in enumerate(whole.column_names):
        whole = whole.set_column(place, name, whole[name].combine_chunks())
        pa.default_memory_pool().release_unused()
    return whole


def number_repeats(tables: list[pa.Table], store: Store) -> str:
    """Append a number to each key that an earlier partition of the archive already has.

    Return the name of the file with the changes, which are stored like a global decision.
    """
    table = pa.concat_tables(tables).combine_chunks()
    bare = [key.split("_")[0] for key in table["key"].to_pylist()]
    numbered = pa.array(keys.number_repeats(bare), pa.string())
    table = table.set_column(table.column_names.index("key"), "key", numbered)
    changed = pc.not_equal(numbered, pa.concat_tables(tables)["key"].combine_chunks())
    return _keep(table.select(["part", "row", "key"]).filter(changed), "keys", store)


def _keep(table: pa.Table, name: str, store: Store) -> str:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=GROUP_ROWS)
    data = sink.getvalue().to_pybytes()
    file = f"work/decisions/{name}-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    store.put_new(file, data)
    return file


def _differences(before: pa.Table, after: pa.Table, column: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return for each row whether a column changed, bool (N,), and the names of the fields that changed.

    Only `images` and `texts` have fields. For other columns, the second value is empty.
    """
    if column not in ITEMS:
        return _differs(in_one(before[column]), in_one(after[column])), ()
    old, new = flatten(before, column), flatten(after, column)
    rows = np.zeros(len(before), dtype=bool)
    fields = []
    for field in old.items.type:
        differs = _differs(old.field(field.name), new.field(field.name))
        if differs.any():
            fields.append(field.name)
            rows[old.parents[differs]] = True
    return rows, tuple(fields)


def _differs(old: pa.Array, new: pa.Array) -> np.ndarray:
    if old.equals(new):
        return np.zeros(len(old), dtype=bool)
    if not pa.types.is_nested(old.type):
        one_null = np.asarray(pc.xor(old.is_null(), new.is_null()))
        return one_null | np.asarray(pc.fill_null(pc.not_equal(old, new), False))
    differs = np.zeros(len(old), dtype=bool)  # nested values are compared one by one only in slices that differ
    for start in range(0, len(old), SLICE):
        left, right = old.slice(start, SLICE), new.slice(start, SLICE)
        if not left.equals(right):
            differs[start : start + SLICE] = [a != b for a, b in zip(left.to_pylist(), right.to_pylist(), strict=True)]
    return differs


def _run_on(driver: Driver) -> Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]:
    """Return a `map` that runs its tasks on the workers and yields the results in order.

    A task whose worker dies is run again.
    """

    def run(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        waiting: dict[int, Any] = {}
        wanted = 0
        calls = ((number, function, task) for number, task in enumerate(tasks))
        for args, result in driver.map("search", calls, together=1):
            waiting[args[0]] = result
            while wanted in waiting:
                yield waiting.pop(wanted)
                wanted += 1

    return run


def _in_order(results: Iterable[tuple[tuple[Any, ...], Any]], calls: Sequence[PartitionCall]) -> Iterator[Any]:
    """Yield the result of each call in the order of the calls, as soon as all earlier calls have ended."""
    waiting: dict[int, Any] = {}
    partitions = deque(call.partition for call in calls)
    for args, result in results:
        waiting[args[0].partition] = result
        del result
        while partitions and partitions[0] in waiting:
            yield waiting.pop(partitions.popleft())
