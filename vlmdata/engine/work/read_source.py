"""Reads the rows of a piece of an archive. The worker that reads a piece commits its rows to the log of the partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from vlmdata.engine.partitions.keys import content_keys, number_repeats
from vlmdata.engine.partitions.partition_log import PartitionBlob, PartitionLog
from vlmdata.engine.partitions.tombstones import Tombstones
from vlmdata.engine.store.store_protocol import Store
from vlmdata.row import IMAGE, ROW, conform, flatten, set_column
from vlmdata.step import Source


def piece_rows(
    store: Store,
    source: Source,
    piece: dict[str, Any],
    log: PartitionLog,
    forgotten: Tombstones,
    check: Callable[[], None],
) -> pa.Table:
    """Return the rows of a piece, without forgotten content.

    If the log of the partition does not hold the rows, read the rows, call `check`, and commit the rows now.
    """
    rows = log.rows()
    if rows is not None:
        return conform(rows)
    blob = PartitionBlob(store, log.partition)
    others: Counter[str] = Counter()
    with ExitStack() as undo:
        undo.callback(blob.discard)
        read = source.read_counting(piece, others)
        tables = [without_data(forgotten.apply(with_keys(conform(table))), blob) for table in read]
        rows = pa.concat_tables(tables) if tables else ROW.empty_table()
        rows = set_column(rows, "key", pa.array(number_repeats(rows["key"].to_pylist()), pa.string())).combine_chunks()
        check()
        undo.pop_all()
    if log.commit(rows, [], blob.close(), rows=True, others=others):
        return rows
    return piece_rows(store, source, piece, PartitionLog(store, log.partition), forgotten, check)


def with_keys(rows: pa.Table) -> pa.Table:
    """Return rows with the key of their content. A column `id` is used for the key and left out."""
    rows = set_column(rows, "key", pa.array(content_keys(rows), pa.string()))
    return rows.drop_columns(["id"]) if "id" in rows.column_names else rows


def without_data(rows: pa.Table, blob: PartitionBlob) -> pa.Table:
    """Move the inline bytes of images into the partition's blob. Return the rows, which then point into the blob."""
    flat = flatten(rows, "images")
    data = flat.field("data").to_pylist()
    if not any(body is not None for body in data):
        return rows
    places: dict[str, list[Any]] = {"blob": [], "offset": [], "size": []}
    for number, body in enumerate(data):
        for name in places:
            places[name].append(flat.field(name)[number].as_py() if body is None else None)
        if body is not None:
            places["blob"][-1], places["offset"][-1], places["size"][-1] = blob.name, blob.add(body), len(body)
    places["data"] = [None] * len(data)
    arrays = [pa.array(places[f.name], f.type) if f.name in places else flat.field(f.name) for f in IMAGE]
    items = pa.StructArray.from_arrays(arrays, fields=list(IMAGE), mask=flat.items.is_null())
    return set_column(rows, "images", flat.rebuild(items))
