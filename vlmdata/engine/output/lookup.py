"""The lookup: for each file of the ledger, an index from words to the rows that contain them.

A word is a key, an address of a page or an image, or the SHA-256 of an image. A lookup file is a Parquet file with the 48-bit
hashes of the words, sorted. A search reads only the few row groups whose statistics allow the word's hash. It then compares the
words themselves, because hashes may collide. Bloom filters in the ledger could replace the lookup, but pyarrow cannot query
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from vlmdata.engine.store.parquet_files import bounds, damage, open_parquet
from vlmdata.engine.store.store_protocol import Store
from vlmdata.redact import redacted_column
from vlmdata.row import flatten, in_one

GROUP = 1 << 15  # number of entries in a row group, so that a search for one word reads about 200 kB
FOLDER = "lookup"


def hash_of(word: str) -> int:
    """Return 48 bits of the hash of a word, which is a key, an address or a SHA-256.

    With a billion words in a file, one word in 280,000 collides with another.
    """
    return xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass")) >> 16


def entries(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the entries of a lookup: sorted hashes, int64 (N,), and the row number of each hash, int32 (N,).

    `table` holds rows of the ledger. Their keys, addresses and SHA-256 values are hashed.
    """
    images = flatten(table, "images")
    own = np.arange(len(table))
    columns = [(table["key"], own), (images.field("sha256"), images.parents)]
    for urls, rows in ((in_one(table["url"]), own), (images.field("url"), images.parents)):
        columns += [(urls, rows), (redacted_column(urls), rows)]  # addresses as they are, and without secrets
    hashes, numbers = [], []
    for words, parents in columns:
        texts = words.to_pylist()
        there = np.array([text is not None for text in texts], dtype=bool)
        hashes.append(np.fromiter((hash_of(text) for text in texts if text is not None), np.int64, int(there.sum())))
        numbers.append(parents[there])
    all_hashes, all_rows = np.concatenate(hashes), np.concatenate(numbers).astype(np.int32)
    order = np.lexsort((all_rows, all_hashes))
    all_hashes, all_rows = all_hashes[order], all_rows[order]
    new = np.ones(len(order), dtype=bool)  # drop repeats: a caption pair and its image have the same address
    new[1:] = (np.diff(all_hashes) != 0) | (np.diff(all_rows) != 0)
    return all_hashes[new], all_rows[new]


def encode(table: pa.Table) -> bytes:
    """Return the lookup of ledger rows as the bytes of a Parquet file: `hash` and `row`, sorted by hash."""
    return encode_entries(*entries(table))


def encode_entries(hashes: np.ndarray, rows: np.ndarray) -> bytes:
    """Return a lookup as the bytes of a Parquet file, given its sorted hashes and the row number of each."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"hash": hashes, "row": rows}),
        sink,
        row_group_size=GROUP,
        compression="zstd",
        use_dictionary=False,
        column_encoding={"hash": "DELTA_BINARY_PACKED", "row": "PLAIN"},
    )
    return sink.getvalue().to_pybytes()


def facts(name: str, data: bytes) -> dict[str, Any]:
    """Return the facts about a file for the manifest: its name, its size in bytes and its SHA-256."""
    return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def name_for(ledger: str) -> str:
    """Return the name of the lookup of a ledger file."""
    return f"{FOLDER}/{ledger.rpartition('/')[2]}"


def candidates(store: Store, ledger: str, words: Sequence[str]) -> np.ndarray:
    """Return the sorted numbers of the rows of a ledger file that may contain one of these words, int32 (N,).

    A word is a key, an address or a SHA-256.
    """
    wanted = np.unique(np.array([hash_of(word) for word in words], dtype=np.int64))
    found = [np.zeros(0, np.int32)]
    with open_parquet(store, name_for(ledger)) as file:
        for number in range(file.num_row_groups if file.metadata.num_rows else 0):
            least, largest = bounds(file.metadata, number)
            first, last = np.searchsorted(wanted, least), np.searchsorted(wanted, largest, "right")
            if first < last:
                group = file.read_row_group(number)
                if group["row"].null_count or group["hash"].null_count:
                    raise damage(store, name_for(ledger), "an entry lacks its hash or its row number")
                rows = group["row"].to_numpy()
                found.append(rows[np.isin(group["hash"].to_numpy(), wanted[first:last])])
    return np.unique(np.concatenate(found))
