"""The ledger: the outcome of every input row.

Workers write it, the driver adds up its counts, and `why` and takedowns read it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.columns import PER_IMAGE, PER_TEXT
from vlmdata.engine.output import lookup
from vlmdata.engine.output.pack import shard_name
from vlmdata.engine.output.sample import measured_columns
from vlmdata.engine.partitions.calls import PartitionCall
from vlmdata.engine.partitions.tombstones import REASON, STEP, TAKEN_DOWN
from vlmdata.engine.store.parquet_files import damage, open_parquet
from vlmdata.engine.store.store_protocol import Store
from vlmdata.generator import ANSWERS
from vlmdata.redact import redacted, redacted_column
from vlmdata.row import Flat, alive, flatten, in_one, set_column

PARTS = "work/parts.json"  # the number of rows of each partition in the ledger, and the files of the global decisions
ROWS_PER_FILE = 250_000  # small, because a takedown rewrites whole files, at 4 s per million rows


def ledger_rows(rows: pa.Table, kept_before: int, samples: int) -> pa.Table:
    """Return the rows of the ledger for a partition.

    `kept_before` is the number of kept rows in earlier partitions, and `samples` is the number of samples per shard.
    """
    is_alive = alive(rows)
    number = kept_before + np.cumsum(is_alive) - 1
    shards = pa.array([shard_name(n // samples) if ok else None for n, ok in zip(number, is_alive, strict=True)], pa.string())
    images = flatten(rows, "images")
    outcome = pa.array(np.where(is_alive, "kept", "dropped"))
    columns: dict[str, Any] = {
        "key": rows["key"],
        "url": pc.coalesce(rows["url"].combine_chunks(), _first_url(images)),
        "outcome": pc.if_else(pc.fill_null(pc.equal(rows["drop"].combine_chunks(), STEP), False), REASON, outcome),
        "step": rows["drop"],
        **{name: rows[name] for name in ("reason", "value", "threshold", "cluster", "problem")},
        "place": pc.if_else(pa.array(is_alive), pa.scalar(None, pa.string()), in_one(rows["place"])),
        "shard": shards,
        "images": _narrow(rows, "images", PER_IMAGE),
        "texts": _narrow(rows, "texts", PER_TEXT),
        **{name: rows[name] for name in measured_columns(rows)},
        **{
            f"{name.rpartition('.')[0]}.failed": _failures(rows[name])
            for name in rows.column_names
            if rows[name].type == ANSWERS
        },
    }
    return pa.table(columns)


def _failures(answers: pa.ChunkedArray) -> pa.Array:
    """Return the reasons why answers about each row failed, joined by commas, or null if none did."""
    names = [sorted({one["failure"] for one in row or () if one["failure"]}) for row in answers.to_pylist()]
    return pa.array([", ".join(found) or None for found in names], pa.string())


def _first_url(images: Flat) -> pa.Array:
    first = images.first(images.field("url").is_valid().to_numpy(zero_copy_only=False))
    return images.field("url").take(pa.array(first, mask=first < 0))


def _narrow(rows: pa.Table, column: str, names: tuple[str, ...]) -> pa.ListArray:
    flat = flatten(rows, column)
    items = pa.StructArray.from_arrays([flat.field(name) for name in names], names=list(names), mask=flat.items.is_null())
    return flat.rebuild(items)


def without_secrets(table: pa.Table) -> pa.Table:
    """Return rows of the ledger with signatures, passwords and tokens removed from every address."""
    images = flatten(table, "images")
    fields = [redacted_column(images.field(f.name)) if f.name == "url" else images.field(f.name) for f in images.items.type]
    items = pa.StructArray.from_arrays(fields, fields=list(images.items.type), mask=images.items.is_null())
    table = set_column(table, "images", images.rebuild(items))
    for name in ("url", "place", "problem"):
        table = set_column(table, name, redacted_column(in_one(table[name])))
    return table


def write(store: Store, number: int, tables: list[pa.Table], is_current: Callable[[], bool] = lambda: True) -> dict[str, Any]:
    """Write file `number` of the ledger and its lookup.

    Return the names and hashes of both files, the numbers of rows and of kept rows, and the number of drops for each step and
    reason. `is_current` is called after writing. It returns False if samples were taken down meanwhile. In that case, delete
    both files and raise OSError.
    """
    name = f"work/ledger/{number:05d}.{uuid.uuid4().hex[:16]}.parquet"
    whole = pa.concat_tables(tables).combine_chunks()
    table = without_secrets(whole)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=20_000)
    data = sink.getvalue().to_pybytes()
    with store.new_file(name) as file:
        file.write(data)
    words = lookup.encode(whole)
    words_name = f"work/ledger/{number:05d}.{uuid.uuid4().hex[:16]}.lookup"
    with store.new_file(words_name) as file:
        file.write(words)
    if not is_current():
        store.delete(name)
        store.delete(words_name)
        raise OSError(TAKEN_DOWN)
    outcomes = Counter(zip(table["step"].to_pylist(), table["reason"].to_pylist(), strict=True))
    return {
        "file": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "rows": len(table),
        "lookup": lookup.facts(words_name, words),
        "kept": outcomes.pop((None, None), 0),
        "dropped": [[step, reason, count] for (step, reason), count in outcomes.items()],
    }


def ledger_files(manifest: dict[str, Any]) -> list[str]:
    """Return the sorted names of the ledger's files."""
    return sorted(name for name in manifest["files"] if name.startswith("ledger/"))


def take_rows(store: Store, name: str, rows: np.ndarray, columns: list[str] | None = None) -> pa.Table:
    """Return some rows of a ledger file. `rows` are their sorted numbers. Only the row groups that hold these rows are read.

    Raises RecipeError if the file is damaged.
    """
    tables = []
    with open_parquet(store, name) as file:
        if len(rows) and not 0 <= rows[0] <= rows[-1] < file.metadata.num_rows:
            raise damage(store, name, "its lookup refers to rows that the file does not have")
        first = 0
        for number in range(file.num_row_groups):
            end = first + file.metadata.row_group(number).num_rows
            here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, end)] - first
            if len(here):
                tables.append(file.read_row_group(number, columns=columns).take(pa.array(here)))
            first = end
        empty = file.schema_arrow.empty_table()
    found = pa.concat_tables(tables) if tables else empty.select(columns or empty.column_names)
    if found["key"].null_count:
        raise damage(store, name, "a row has no key")
    return found


def words_of(line: dict[str, Any]) -> set[str]:
    """Return the words with which a search finds a row of the ledger: its key, hashes, and addresses without secrets."""
    images = [image for image in line["images"] or [] if image]
    words = {line["key"], line["url"], *(image[name] for image in images for name in ("url", "sha256"))}
    return {redacted(word) for word in words if word is not None}  # ledgers of earlier versions hold addresses with secrets


def record_partitions(store: Store, calls: list[PartitionCall], counts: list[dict[str, int]]) -> None:
    """Write work/parts.json: the partitions of a run in the order of the ledger, each with its number of rows."""
    partitions = [[call.partition, call.take, count["rows"]] for call, count in zip(calls, counts, strict=True)]
    store.put(PARTS, json.dumps({"decided": calls[0].decided if calls else [], "parts": partitions}).encode())
