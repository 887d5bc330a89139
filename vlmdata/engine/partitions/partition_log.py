"""The log of a partition: its measurements, as a sequence of committed entries.

An entry is a Parquet file of measured columns, an optional blob of images, and a record that names both. Records are numbered
and created exclusively. So if two workers process one partition, the first to commit wins, and the other uses the winner's
entry.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.engine.store.json_shapes import WORK_FIX, Entry, read_record
from vlmdata.engine.store.store_protocol import Store
from vlmdata.row import conform_array


class PartitionLog:
    """The committed entries of one partition, read when this object is created."""

    def __init__(self, store: Store, partition: int):
        self.store = store
        self.partition = partition
        self.folder = f"work/log/{partition:06d}"
        self.entries = [read_record(store, name, Entry, WORK_FIX) for name in store.list(self.folder)]

    def rows(self) -> pa.Table | None:
        """Return the rows that a worker read from an archive and committed, or None if there are none."""
        for entry in self.entries:
            if entry["rows"]:
                return pq.read_table(pa.BufferReader(self.store.read(entry["table"])))
        return None

    def measured(
        self, name: str, wanted: np.ndarray, inputs: np.ndarray, writes: Mapping[str, pa.DataType] | None = None
    ) -> tuple[np.ndarray, pa.Array | None]:
        """Look up a measurement for the rows that `wanted` marks, bool (N,).

        `inputs` are hashes of the current inputs of all rows, uint64 (N,). Return two values: which of the wanted rows have the
        measurement, bool (N,), and the measured columns of exactly the rows found, as a struct array in row order. The array is
        None if no entry has the measurement. A later entry overrides an earlier one. A value that was measured on other inputs
        does not count. `writes` maps the measured columns to their types; without it, the types are as stored. An entry of an
        earlier version may lack fields of images or texts, which are then null.
        """
        found = np.full(len(wanted), -1)
        arrays = []
        base = 0
        for entry in self.entries:
            if name not in entry["measures"]:
                continue
            file = pq.ParquetFile(pa.BufferReader(self.store.read(entry["table"])))  # `read_table` takes a third longer
            table = file.read(columns=["row", name], use_threads=False)
            values = table[name].combine_chunks()
            row = table["row"].to_numpy()
            has = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False) & (row < len(wanted)))
            stored = values.field("input").take(pa.array(has))  # without nulls, which would make numpy convert to floats
            same = stored.to_numpy() == inputs[row[has]]
            has = has[same]
            found[row[has]] = base + has
            arrays.append(values if writes is None else _with_types(values, writes))
            base += len(values)
        have = (found >= 0) & wanted
        return have, (pa.concat_arrays(arrays).take(pa.array(found[have])) if arrays else None)

    def others(self) -> dict[str, int]:
        """Return how many records gave no row, by kind of record, in the piece of an archive that this partition reads."""
        return next((entry["others"] for entry in self.entries if entry["rows"]), {})

    def commit(
        self,
        table: pa.Table,
        measures: list[str],
        blobs: list[str],
        *,
        rows: bool = False,
        others: Mapping[str, int] | None = None,
    ) -> bool:
        """Add an entry and return True. If another worker has added one since this log was read, return False.

        The entry holds measurements or, with `rows`, rows read from an archive. `measures` names the measurements in `table`,
        and `blobs` names the files with its images. `others` counts, by kind, the records of the archive from which no rows
        were made. If the result is False, the new files are deleted.
        """
        name = attempt_name("work/data", self.partition, "parquet")
        with self.store.new_file(name) as file:
            pq.write_table(table, file, compression="zstd")
        record: dict[str, Any] = {"table": name, "measures": measures, "blobs": blobs, "rows": rows, "count": len(table)}
        record["others"] = dict(others or {})
        record_name = f"{self.folder}/{len(self.entries):04d}.json"
        if self.store.put_new(record_name, json.dumps(record, sort_keys=True).encode()):
            self.entries.append(record)
            return True
        for loser in [name, *blobs]:
            self.store.delete(loser)
        return False


def attempt_name(folder: str, partition: int, ending: str) -> str:
    """Return a file name that is unique to this attempt at a partition."""
    return f"{folder}/{partition:06d}.{uuid.uuid4().hex[:16]}.{ending}"


class PartitionBlob:
    """Writes the images of one partition into one file, in the order of completion. Not thread-safe.

    The file is created when the first image is added.
    """

    def __init__(self, store: Store, partition: int):
        self.store = store
        self.name = attempt_name("work/data", partition, "blob")
        self.size = 0
        self._context: Any = None
        self._file: IO[bytes] | None = None

    def add(self, data: bytes) -> int:
        """Append bytes and return their offset."""
        if self._file is None:
            self._context = self.store.new_file(self.name)
            self._file = self._context.__enter__()
        self._file.write(data)
        self.size += len(data)
        return self.size - len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, which must have been added before. Call this only before `close`."""
        assert self._file is not None
        self._file.flush()
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> list[str]:
        """Make the file durable and return a list with its name, or an empty list if nothing was added."""
        if self._file is None:
            return []
        self._file = None
        self._context.__exit__(None, None, None)
        return [self.name]

    def discard(self) -> None:
        """Close and delete the file, if there is one."""
        for name in self.close():
            self.store.delete(name)


def _with_types(values: pa.StructArray, writes: Mapping[str, pa.DataType]) -> pa.StructArray:
    kinds = {field.name: writes.get(field.name, field.type) for field in values.type}
    return conform_array(values, pa.struct(list(kinds.items())))
