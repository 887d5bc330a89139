"""Packs kept rows into tars, in the order of the plan. The same samples always give the same bytes."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.engine.output.provenance import tally
from vlmdata.engine.output.sample import BlobPlace, TarSample
from vlmdata.engine.partitions.tombstones import TAKEN_DOWN
from vlmdata.engine.store.blob_bytes import read_blob
from vlmdata.engine.store.store_protocol import Store
from vlmdata.loader.index.index_file import IndexRow, index_table

BLOCK = 512
# Keys have no dictionary, because they are hashes: a dictionary would cost a third more time and bytes.
INDEX_FORMAT: dict[str, Any] = {
    "compression": "zstd",
    "write_page_checksum": True,  # without a checksum, a damaged page could be read as other samples
    "use_dictionary": ["shard", "members.list.element.name"],
    "column_encoding": dict.fromkeys(("offset", "members.list.element.offset"), "DELTA_BINARY_PACKED"),
}
RECORD = 10_240  # bytes; a tar is padded with zeros to a multiple of this, as tar and tarfile do


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"{number:05d}.tar"


def pack(store: Store, number: int, samples: list[TarSample], is_current: Callable[[], bool] = lambda: True) -> dict[str, Any]:
    """Write shard `number` and its index, if no identical shard exists. Return the record of the shard.

    The name of the record is a hash of the shard's content. So after a change of a threshold, only shards whose samples changed
    are packed again. `is_current` is called after writing. It returns False if samples were taken down meanwhile. In that case,
    delete the shard and raise OSError.
    """
    name = f"work/shards/{_identity(number, samples)}.json"
    try:
        return json.loads(store.read(name))
    except FileNotFoundError:
        pass
    base = f"work/shards/{number:05d}.{uuid.uuid4().hex[:16]}"
    with store.new_file(f"{base}.tar") as tar:
        rows, size, digest = _write(store, shard_name(number), samples, tar)
    table = _with_scores(index_table(rows), samples)
    with store.new_file(f"{base}.parquet") as file:
        pq.write_table(table, file, **INDEX_FORMAT)
    record: dict[str, Any] = {
        "tar": f"{base}.tar",
        "index": f"{base}.parquet",
        "bytes": size,
        "sha256": digest,
        "samples": len(samples),
        "provenance": tally(
            data for sample in samples for name, data in sample.members if name == "json" and isinstance(data, bytes)
        ),
    }
    if not store.put_new(name, json.dumps(record, sort_keys=True).encode()):
        store.delete(record["tar"])
        store.delete(record["index"])
    elif not is_current():
        for gone in (name, record["tar"], record["index"]):
            store.delete(gone)
        raise OSError(TAKEN_DOWN)
    return json.loads(store.read(name))


def _identity(number: int, samples: list[TarSample]) -> str:
    digest = hashlib.sha256(f"with provenance {number}".encode())
    for sample in samples:
        for name, data in sample.members:
            digest.update(f"\n{sample.key}.{name} ".encode())
            digest.update(repr(data).encode() if isinstance(data, BlobPlace) else data)
        digest.update(repr(sorted(sample.scores.items())).encode())
    return digest.hexdigest()[:32]


def _write(store: Store, shard: str, samples: list[TarSample], tar: Any) -> tuple[list[IndexRow], int, str]:
    digest = hashlib.sha256()
    rows = []
    position = 0

    def write(data: bytes) -> None:
        nonlocal position
        tar.write(data)
        digest.update(data)
        position += len(data)

    for sample in samples:
        start = position
        members = []
        for name, data in sample.members:
            body = read_blob(store, *data) if isinstance(data, BlobPlace) else data
            write(header(f"{sample.key}.{name}", len(body)))
            members.append((name, position, len(body)))
            write(body + bytes(-len(body) % BLOCK))
        rows.append(IndexRow(sample.key, shard, start, position - start, members, sample.text_chars, sample.images))
    write(bytes(2 * BLOCK))
    write(bytes(-position % RECORD))
    return rows, position, digest.hexdigest()


def header(name: str, size: int) -> bytes:
    """Return the ustar header of a regular file, 512 bytes. The mode is 0644; owner, group and time are zero."""
    fields = [
        (name.encode(), 100),
        (b"0000644", 8),
        (b"0000000", 8),
        (b"0000000", 8),
        (b"%011o" % size, 12),
        (b"%011o" % 0, 12),
        (b" " * 8, 8),
        (b"0", 1),
        (b"", 100),
        (b"ustar", 6),
        (b"00", 2),
    ]
    block = bytearray(b"".join(value.ljust(width, b"\0") for value, width in fields).ljust(BLOCK, b"\0"))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _with_scores(table: pa.Table, samples: list[TarSample]) -> pa.Table:
    """Add a float64 column for each score. A sample that lacks the score has null."""
    for name in sorted({name for sample in samples for name in sample.scores}):
        table = table.append_column(name, pa.array([sample.scores.get(name) for sample in samples], pa.float64()))
    return table
