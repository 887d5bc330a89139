"""The indexes of a dataset for Megatron Energon: `TAR.idx` beside each tar, and index.sqlite for all tars.

The tables, columns and file names are those that `energon prepare` of megatron-energon 7.4.1 makes
(https://github.com/NVIDIA/Megatron-Energon, flavors/webdataset/indexing.py and itar.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import struct
import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from vlmdata.engine.output.pack import BLOCK, RECORD, header
from vlmdata.errors import RecipeError
from vlmdata.exporting.exporter import Sample

CACHE = 16 << 10  # KiB of index.sqlite in memory, so that the memory does not grow with the dataset
TABLES = """
    CREATE TABLE samples (
        tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
        byte_offset INTEGER, byte_size INTEGER
    );
    CREATE TABLE sample_parts (
        tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, content_byte_offset INTEGER, content_byte_size INTEGER
    );
"""
INDEXES = """
    CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
    CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
    CREATE INDEX idx_sample_parts_full
        ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""


class IndexedTar:
    """Writes a tar, the index beside it, and the tar's lines for index.sqlite. Use it in a `with` block."""

    def __init__(self, path: Path, lines: Path) -> None:
        self._paths = (path, path.with_name(f"{path.name}.idx"), lines)
        self._stack = ExitStack()
        self._position = 0

    def __enter__(self) -> IndexedTar:
        self._tar, self._index, self._lines = (self._stack.enter_context(path.open("wb")) for path in self._paths)
        return self

    def add(self, sample: Sample) -> None:
        """Append a sample. Its members keep their order and their bytes."""
        start, parts = self._position, []
        self._index.write(struct.pack("<Q", start))
        for name, data in sample.members.items():
            self._tar.write(header(f"{sample.key}.{name}", len(data)) + data + bytes(-len(data) % BLOCK))
            parts.append((name, self._position + BLOCK, len(data)))
            self._position += BLOCK + len(data) + -len(data) % BLOCK
        self._lines.write(json.dumps([sample.key, start, self._position - start, parts]).encode() + b"\n")

    def __exit__(self, *error: object) -> None:
        with self._stack:
            if self._position:
                self._index.write(struct.pack("<Q", self._position))
                self._tar.write(bytes(2 * BLOCK) + bytes(-(self._position + 2 * BLOCK) % RECORD))
        if not self._position:  # Energon refuses a tar without samples
            for path in self._paths[:2]:
                path.unlink()


def write_sqlite(path: Path, draft: Path, lines: Iterable[Path]) -> str:
    """Write index.sqlite from the lines of all tars, in order, and return a UUID that depends only on its content.

    The database is built at the path `draft`, and then moved. Raises RecipeError if two samples have the same key.
    """
    draft.unlink(missing_ok=True)
    digest = hashlib.sha256()
    with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as db:
        db.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE}; {TABLES}")
        db.execute("BEGIN")
        for tar, file in enumerate(lines):
            with file.open("rb") as read:
                for number, line in enumerate(read):
                    digest.update(line)
                    _insert(db, tar, number, json.loads(line))
        db.execute("COMMIT")
        db.executescript(INDEXES)
    os.replace(draft, path)
    return str(uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest()))


def _insert(db: sqlite3.Connection, tar: int, number: int, found: list[Any]) -> None:
    key, start, size, parts = found
    try:
        db.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", (tar, key, number, start, size))
    except sqlite3.IntegrityError:
        raise RecipeError(
            f"two samples have the key {key}, and Energon needs different keys. Build the dataset again"
        ) from None
    db.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", ((tar, number, *part) for part in parts))


def chosen(names: list[str], counts: dict[str, int]) -> dict[str, list[str]]:
    """Divide shards among splits. `counts` has the number of shards of each split, except `train`, which gets the rest.

    A hash of a shard's name decides, because neighbouring shards often come from the same part of the source.
    """
    order = iter(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()))
    splits = {split: sorted(islice(order, count)) for split, count in counts.items()}
    return {"train": sorted(order), **splits}
