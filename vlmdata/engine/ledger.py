"""The ledger: the outcome of every input row, written by workers, summed up by the driver."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.engine import lookup
from vlmdata.engine.base import Store
from vlmdata.engine.columns import PER_IMAGE, PER_TEXT
from vlmdata.engine.pack import shard_name
from vlmdata.engine.sample import measured_columns
from vlmdata.engine.tombstones import REASON, STEP, TAKEN_DOWN
from vlmdata.redact import redacted_column
from vlmdata.row import alive, flatten, in_one, set_column

ROWS_PER_FILE = 250_000  # a takedown writes a file of them anew: one of a million takes 4 s


def ledger_rows(rows: pa.Table, kept_before: int, samples: int) -> pa.Table:
    """Return a part's lines of the ledger. `kept_before` rows are kept in earlier parts, `samples` go into a shard."""
    living = alive(rows)
    number = kept_before + np.cumsum(living) - 1
    shards = pa.array([shard_name(n // samples) if ok else None for n, ok in zip(number, living, strict=True)], pa.string())
    images = flatten(rows, "images")
    outcome = pa.array(np.where(living, "kept", "dropped"))
    columns: dict[str, Any] = {
        "key": rows["key"],
        "url": pc.coalesce(rows["url"].combine_chunks(), _first_url(images, len(rows))),
        "outcome": pc.if_else(pc.fill_null(pc.equal(rows["drop"].combine_chunks(), STEP), False), REASON, outcome),
        "step": rows["drop"],
        **{name: rows[name] for name in ("reason", "value", "threshold", "cluster", "problem")},
        "place": pc.if_else(pa.array(living), pa.scalar(None, pa.string()), in_one(rows["place"])),
        "shard": shards,
        "images": _narrow(rows, "images", PER_IMAGE),
        "texts": _narrow(rows, "texts", PER_TEXT),
        **{name: rows[name] for name in measured_columns(rows)},
    }
    return pa.table(columns)


def _first_url(images: Any, count: int) -> pa.Array:
    urls: list[str | None] = [None] * count
    for row, url in zip(images.parents[::-1], images.field("url").to_pylist()[::-1], strict=True):
        urls[row] = url if url is not None else urls[row]
    return pa.array(urls, pa.string())


def _narrow(rows: pa.Table, column: str, names: tuple[str, ...]) -> pa.ListArray:
    flat = flatten(rows, column)
    items = pa.StructArray.from_arrays([flat.field(name) for name in names], names=list(names), mask=flat.items.is_null())
    return flat.rebuild(items)


def without_secrets(table: pa.Table) -> pa.Table:
    """Return lines of the ledger with what signs an address, or lets somebody in, left out of every address."""
    images = flatten(table, "images")
    fields = [redacted_column(images.field(f.name)) if f.name == "url" else images.field(f.name) for f in images.items.type]
    items = pa.StructArray.from_arrays(fields, fields=list(images.items.type), mask=images.items.is_null())
    table = set_column(table, "images", images.rebuild(items))
    for name in ("url", "place", "problem"):
        table = set_column(table, name, redacted_column(in_one(table[name])))
    return table


def write(store: Store, number: int, tables: list[pa.Table], is_current: Callable[[], bool] = lambda: True) -> dict[str, Any]:
    """Write one file of the ledger and return its name, hash and counts: rows, kept, and rows by step and reason.

    Where `is_current` says afterwards that samples were taken down meanwhile, it is removed again: raises OSError.
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
