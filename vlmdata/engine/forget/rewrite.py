"""Writes new versions of published files, without the samples that a takedown removes.

The rewritten files are the index, the tars that hold a removed sample, and the ledger and lookup files that hold the row of a
removed sample. The new versions are written to a separate folder. The takedown replaces the published files later.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.count_line import CountLine
from vlmdata.engine.output import lookup
from vlmdata.engine.output.pack import BLOCK, INDEX_FORMAT, RECORD
from vlmdata.engine.output.provenance import Tally, tally
from vlmdata.engine.output.samples_index import open_index, places, read_open
from vlmdata.engine.output.stored_samples import by_shard
from vlmdata.engine.partitions.tombstones import REASON, STEP
from vlmdata.engine.store.parquet_files import open_parquet
from vlmdata.engine.store.store_protocol import Store
from vlmdata.row import set_column

CHUNK = 8 << 20
THREADS = 4


def shards_without(store: Store, folder: str, keys: pa.Array) -> tuple[dict[str, dict[str, Any] | None], Tally]:
    """Write new versions of the index and of the tars into `folder`, without the samples that have these keys.

    A tar that holds none of these samples is not rewritten. Return (files, provenance of the removed samples). `files` maps the
    published name of each changed file to the new file's name, size and hash. A tar that would be empty is mapped to None, and
    is to be deleted.
    """
    written: dict[str, dict[str, Any] | None] = {}
    gone: list[bytes] = []
    with (
        open_index(store) as index,
        store.new_file(f"{folder}/index.parquet") as new,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        jobs = []
        with pq.ParquetWriter(new, index.schema, **INDEX_FORMAT) as writer:
            for shard, table in by_shard(index):
                keep = ~np.asarray(pc.is_in(table["key"], keys))
                if not keep.all():
                    gone += _documents(store, shard, table.filter(pa.array(~keep)))
                    jobs.append((shard, pool.submit(_tar, store, folder, shard, table, keep)))
                    table = _shifted(table, keep)
                if len(table):
                    writer.write_table(table)
        with CountLine("rewriting tars", len(jobs)) as line:
            for shard, job in jobs:
                written[shard] = job.result()
                line.add(1)
        new.flush()
        new.seek(0)
        written["index.parquet"] = lookup.facts(f"{folder}/index.parquet", new.read())
    return written, tally(gone)


def _documents(store: Store, shard: str, table: pa.Table) -> list[bytes]:
    """Return the `json` member of each sample in `table`, which holds rows of the index for one shard."""
    spans = [places(line)["json"] for line in table.select(["members"]).to_pylist()]
    with store.open(shard) as tar:
        return [read_open(store, shard, tar, *span) for span in spans]


def _tar(store: Store, folder: str, shard: str, table: pa.Table, keep: np.ndarray) -> dict[str, Any] | None:
    """Copy the samples that `keep` marks into a new tar. Return its name, size and hash, or None if `keep` marks no sample."""
    if not keep.any():
        return None
    starts, sizes = table["offset"].to_numpy()[keep], table["size"].to_numpy()[keep]
    digest, position = hashlib.sha256(), 0
    with store.new_file(f"{folder}/{shard}") as out, store.open(shard) as old:
        for start, size in _runs(starts, sizes):
            while size:
                data = read_open(store, shard, old, start, min(size, CHUNK))
                start += len(data)
                out.write(data)
                digest.update(data)
                position += len(data)
                size -= len(data)
        end = bytes(2 * BLOCK)
        end += bytes(-(position + len(end)) % RECORD)
        out.write(end)
        digest.update(end)
    facts = {"bytes": position + len(end), "sha256": digest.hexdigest(), "samples": int(keep.sum())}
    return {"file": f"{folder}/{shard}", **facts}


def _runs(starts: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Join adjacent spans and yield the (start, size) of each joined span, so that one read replaces thousands."""
    breaks = np.flatnonzero(starts[1:] != starts[:-1] + sizes[:-1]) + 1
    for piece in np.split(np.arange(len(starts)), breaks):
        yield int(starts[piece[0]]), int(starts[piece[-1]] + sizes[piece[-1]] - starts[piece[0]])


def _shifted(table: pa.Table, keep: np.ndarray) -> pa.Table:
    """Return the rows of the index that `keep` marks, with their offsets in the new tar."""
    table = table.filter(pa.array(keep)).combine_chunks()
    sizes, old = table["size"].to_numpy(), table["offset"].to_numpy()
    new = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else sizes
    members = table["members"].combine_chunks()
    flat = members.flatten()
    shift = np.repeat(new - old, np.asarray(pc.list_value_length(members)))
    moved = pa.array(flat.field("offset").to_numpy() + shift)
    items = pa.StructArray.from_arrays([flat.field("name"), moved, flat.field("size")], fields=list(flat.type))
    offsets = pa.array(np.concatenate([[0], np.cumsum(np.asarray(pc.list_value_length(members)))]).astype(np.int32))
    table = set_column(table, "members", pa.ListArray.from_arrays(offsets, items, type=members.type))
    return set_column(table, "offset", pa.array(new, pa.int64()))


def ledger_without(store: Store, folder: str, name: str, rows: np.ndarray) -> dict[str, dict[str, Any]]:
    """Write a new version of the ledger file `name` and of its lookup, in which some rows are forgotten.

    `rows` holds the numbers of these rows in ascending order. Return a mapping from the published name of each of the two
    files to the name, size and hash of its new version.
    """
    keys: list[str] = []
    sink = io.BytesIO()
    with open_parquet(store, name) as file:
        first = 0
        with pq.ParquetWriter(sink, file.schema_arrow, compression="zstd") as writer:
            for number in range(file.num_row_groups):
                group = file.read_row_group(number)
                here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + len(group))] - first
                if len(here):
                    keys += group["key"].take(pa.array(here)).to_pylist()
                    group = _forgotten(group, here)
                writer.write_table(group, row_group_size=len(group))
                first += len(group)
    words = lookup.name_for(name)
    return {
        name: _write(store, folder, name, sink.getvalue()),
        words: _write(store, folder, words, _lookup(store, name, rows, keys)),
    }


def _forgotten(group: pa.Table, here: np.ndarray) -> pa.Table:
    """Return all rows of a row group of the ledger. The rows with the numbers in `here` keep only their key.

    Their outcome becomes `forgotten`.
    """
    hit = np.zeros(len(group), dtype=bool)
    hit[here] = True
    words = {"outcome": REASON, "step": STEP, "reason": REASON}
    kept = pa.array(np.arange(len(group)), mask=hit)
    for name in group.column_names:
        old = group[name].combine_chunks()
        if name in words:
            group = set_column(group, name, pc.if_else(pa.array(hit), words[name], old))
        elif name != "key":
            group = set_column(group, name, old.take(kept))
    return group


def _lookup(store: Store, ledger: str, rows: np.ndarray, keys: list[str]) -> bytes:
    """Return the lookup of a ledger file without the addresses and hashes of some rows, as the bytes of a file.

    `rows` are the numbers of these rows, and `keys` are their keys. The keys stay, so that a search can say that a key was
    forgotten.
    """
    with open_parquet(store, lookup.name_for(ledger)) as file:
        table = file.read()
    hashes, row = table["hash"].to_numpy(), table["row"].to_numpy()
    keep = ~np.isin(row, rows)
    own = np.array([lookup.hash_of(key) for key in keys], dtype=np.int64)
    order = np.argsort(own, kind="stable")
    hashes, row, own, number = hashes[keep], row[keep], own[order], rows.astype(np.int32)[order]
    places = np.searchsorted(hashes, own)
    return lookup.encode_entries(np.insert(hashes, places, own), np.insert(row, places, number))


def _write(store: Store, folder: str, name: str, data: bytes) -> dict[str, Any]:
    with store.new_file(f"{folder}/{name}") as file:
        file.write(data)
    return lookup.facts(f"{folder}/{name}", data)
