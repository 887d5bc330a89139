"""Erases forgotten rows from work/: the plan, logs, blobs, decisions and packed shards.

If the process is killed, each step can be repeated.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.engine.output.run_log import clear_errors
from vlmdata.engine.partitions import answer_journal
from vlmdata.engine.partitions import plan as plans
from vlmdata.engine.partitions.decided import GROUP_ROWS
from vlmdata.engine.partitions.partition_log import PartitionLog
from vlmdata.engine.partitions.pieces import clear_pieces
from vlmdata.engine.partitions.plan import PARTITIONS_PER_FILE, PartitionPlan
from vlmdata.engine.partitions.tombstones import KEY_DIGITS, blank
from vlmdata.engine.store.store_protocol import Store
from vlmdata.row import flatten

THREADS = 4
Cells = dict[int, list[int]]  # partition -> numbers of its rows
Spans = dict[str, set[tuple[int, int]]]  # blob -> (offset, size)


def planned(store: Store, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """Yield the number and the rows of every partition in work/.

    If the source is a list, the rows have only the columns in `columns`. If it is an archive, the rows have all columns, and
    partitions that no worker has read yet are skipped.
    """
    plan = plans.load(store)
    if plan is None:
        return
    for number, name in enumerate(plan.files):
        with store.open(name) as opened:
            file = pq.ParquetFile(opened)
            present = [column for column in columns if column in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                yield number * PARTITIONS_PER_FILE + group, file.read_row_group(group, columns=present)
    if not plan.is_list:
        for partition in range(plan.parts):
            rows = PartitionLog(store, partition).rows()
            if rows is not None:
                yield partition, rows


def erase(store: Store, cells: Cells, keys: set[str]) -> None:
    """Erase everything about some rows from work/, except the keys of the rows.

    `cells` maps each partition to the numbers of its rows to erase. `keys` are the keys of these rows, without the number that
    marks a repeated row.
    """
    plan = plans.load(store)
    if plan is not None:
        _erase_logs(store, cells)
        _erase_plan(store, plan, cells)
        _erase_decisions(store, cells)
        answer_journal.erase(store, cells, keys, KEY_DIGITS)
    clear_pieces(store)  # left by a killed run
    _delete_attempts(store, plan, keys)
    clear_errors(store)


def _erase_plan(store: Store, plan: PartitionPlan, cells: Cells) -> None:
    for number, name in enumerate(plan.files):
        first = number * PARTITIONS_PER_FILE
        if not any(first <= partition < first + PARTITIONS_PER_FILE for partition in cells):
            continue
        sink = io.BytesIO()
        with store.open(name) as opened:
            file = pq.ParquetFile(opened)
            with pq.ParquetWriter(sink, file.schema_arrow, compression="zstd", write_statistics=False) as writer:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group)
                    hit = np.isin(np.arange(len(rows)), cells.get(first + group, []))
                    writer.write_table(_blank_as(rows, hit), row_group_size=len(rows))
        store.put(name, sink.getvalue())


def _blank_as(rows: pa.Table, hit: np.ndarray) -> pa.Table:
    """Return all rows, with the content erased where `hit` is true. The result has the same columns as `rows`.

    If `rows` lacks the columns `drop` and `reason`, the result cannot mark the erased rows as forgotten. The tombstones then
    mark these rows when they are read.
    """
    return blank(rows, hit).select(rows.column_names).cast(rows.schema)


def erase_partition(store: Store, partition: int, rows: list[int]) -> None:
    """Erase the rows with these numbers from the log and the files of a partition.

    Call it if a worker committed these rows during a takedown.
    """
    _erase_log(store, partition, rows)


def _erase_logs(store: Store, cells: Cells) -> None:
    used: set[str] = set()
    with ThreadPoolExecutor(THREADS) as pool:
        for names in pool.map(lambda partition: _erase_log(store, partition, cells[partition]), cells):
            used |= names
    for name in store.list("work/data"):
        partition = int(name.rpartition("/")[2].partition(".")[0])
        if partition in cells and name not in used:  # left by an attempt that was killed before its commit
            store.delete(name)


def _erase_log(store: Store, partition: int, rows: list[int]) -> set[str]:
    """Erase rows from the files that a partition's log names. Return the names of these files.

    `rows` are the numbers of the rows. Images are erased first, because the tables say where the images are.
    """
    log = PartitionLog(store, partition)
    names = {name for entry in log.entries for name in [entry["table"], *entry["blobs"]]}
    if not rows or not log.entries:
        return names
    tables = [pq.read_table(pa.BufferReader(store.read(entry["table"]))) for entry in log.entries]
    gone: Spans = defaultdict(set)
    kept: Spans = defaultdict(set)
    changed = []
    for entry, table in zip(log.entries, tables, strict=True):
        number = np.arange(len(table)) if entry["rows"] else table["row"].to_numpy()
        hit = np.isin(number, rows)
        _collect(table, hit, gone, kept)
        changed.append(_blank_as(table, hit) if entry["rows"] else table.filter(pa.array(~hit)))
    for blob, spans in gone.items():
        store.erase(blob, sorted(spans - kept[blob]))
    for entry, old, new in zip(log.entries, tables, changed, strict=True):
        if not new.equals(old):
            sink = io.BytesIO()
            pq.write_table(new, sink, compression="zstd")
            store.put(entry["table"], sink.getvalue())
    return names


def _collect(table: pa.Table, hit: np.ndarray, gone: Spans, kept: Spans) -> None:
    """Find where in work/ the images of a table are stored.

    The places of images of erased rows are added to `gone`, and the places of other images to `kept`. Rows may share an
    image, so a place can be in both. Such an image must stay.
    """
    for name in table.column_names:
        column = table[name].combine_chunks()
        images = column
        if pa.types.is_struct(column.type) and "images" in [field.name for field in column.type]:
            images = column.field("images")
        elif name != "images":
            continue
        flat = flatten(pa.table({"images": images}), "images")
        places = zip(*(flat.field(field).to_pylist() for field in ("blob", "offset", "size")), strict=True)
        for (blob, offset, size), forgotten in zip(places, hit[flat.parents], strict=True):
            if blob is not None and blob.startswith("work/"):
                (gone if forgotten else kept)[blob].add((offset, size))


def _erase_decisions(store: Store, cells: Cells) -> None:
    """Remove rows from the file of every global decision. The file keeps its name, although its content changes.

    `cells` maps each partition to the numbers of its rows to remove.
    """
    for name in store.list("work/decisions"):
        table = pq.read_table(pa.BufferReader(store.read(name)))
        place = table["part"].to_numpy().astype(np.int64) << 32 | table["row"].to_numpy()
        hit = np.isin(place, [partition << 32 | row for partition, rows in cells.items() for row in rows])
        if hit.any():
            sink = io.BytesIO()
            pq.write_table(table.filter(pa.array(~hit)), sink, compression="zstd", row_group_size=GROUP_ROWS)
            store.put(name, sink.getvalue())


def _files_if_without(store: Store, name: str, keys: pa.Array) -> list[str]:
    """Return the names of a packed shard's files (record, tar, index), or an empty list if the shard holds one of `keys`.

    In the second case, the record is deleted. `name` is the name of the record.
    """
    record: dict[str, Any] = json.loads(store.read(name))
    with store.open(record["index"]) as opened:
        packed = pq.read_table(opened, columns=["key"])["key"]
    if not pc.any(pc.is_in(pc.utf8_slice_codeunits(packed, 0, KEY_DIGITS), keys)).as_py():
        return [name, record["tar"], record["index"]]
    store.delete(name)  # before the other files, because without the record nothing reads them
    return []


def _delete_attempts(store: Store, plan: PartitionPlan | None, keys: set[str]) -> None:
    """Delete what a run can create again: unpublished ledger files, packed shards with any of these keys, unused plan files."""
    for name in store.list("work/ledger"):
        store.delete(name)
    wanted = pa.array(sorted(keys), pa.string())
    with ThreadPoolExecutor(THREADS) as pool:
        records = [name for name in store.list("work/shards") if name.endswith(".json")]
        clean = {name for names in pool.map(lambda record: _files_if_without(store, record, wanted), records) for name in names}
    for name in store.list("work/shards"):
        if name not in clean:
            store.delete(name)
    for name in store.list("work/plan"):
        if plan is not None and name not in plan.files:
            store.delete(name)
    store.delete_drafts()
