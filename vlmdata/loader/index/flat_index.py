"""An index as flat arrays, which locate a sample by row number without parsing.

The arrays of a small dataset are in memory. The arrays of a large dataset are files in a cache folder, and these files are
mapped into memory. Opening 100 million rows then takes milliseconds, and all processes of a machine share one copy.
"""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from vlmdata.loader.index.index_file import NoIndex, NoSamples, check_schema, numbers_of, parsing
from vlmdata.loader.index.tar import BLOCK
from vlmdata.loader.order.order import Ints, key, noise

FLAT_VERSION = 3  # version of the format of the files
MAPPED_ROWS = 2_000_000  # an index with at least this number of rows (150 MB) has its arrays in files


class SampleLocation(NamedTuple):
    """The location of a sample in its shard: member i has the name `names[i]` and `sizes[i]` bytes at offset `offsets[i]`."""

    row: int
    key: str
    shard: int
    names: tuple[str, ...]
    offsets: list[int]
    sizes: list[int]

    def only(self, wanted: list[bool]) -> "SampleLocation":
        """Return the location with only the members for which `wanted` is true."""
        offsets, sizes = [*compress(self.offsets, wanted)], [*compress(self.sizes, wanted)]
        return self._replace(names=(*compress(self.names, wanted),), offsets=offsets, sizes=sizes)


def _rows_of(flat: Ints, counts: Ints) -> list[list[int]]:
    """Return a flat array cut into lists, where list i has `counts[i]` items."""
    if len(counts) and (counts == counts[0]).all():
        return flat.reshape(len(counts), -1).tolist()
    items, ends = flat.tolist(), np.cumsum(counts).tolist()
    return [items[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@dataclass
class FlatIndex:
    """An index as flat arrays. It has n samples with m members in total.

    Successive samples in one shard form a run, and there are r runs. `layouts` holds the distinct tuples of member names.
    `digest` is a hash of the samples, their order and their locations. `base` is the folder or address of the tars, if the
    index file records one. `folder` holds the arrays of a large index. The arrays are
    - `run_starts`, `run_shards` (r,): the first row and the shard of each run;
    - `key_ends` (n + 1,) and `keys`: the key of row i is bytes `key_ends[i]` to `key_ends[i + 1]` of `keys`;
    - `layout`, `first_member`, `origin` (n,): the index of each sample's layout in `layouts`, the index of its first member in
      `members`, and the offset of the sample in its shard;
    - `members` (m, 2): the offset of each member from the `origin` of its sample, and the member's size;
    - `shard_ends`: the byte at which the last member of each shard ends, with padding.
    """

    shards: list[str]
    layouts: list[tuple[str, ...]]
    digest: str
    arrays: dict[str, NDArray[Any]]
    base: str | None = None
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.arrays["layout"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the folder of mapped arrays, so that workers map the files instead of receiving gigabytes."""
        if self.folder is not None:
            return open_mapped, (self.folder,)
        return FlatIndex, (self.shards, self.layouts, self.digest, self.arrays, self.base)

    def locate(self, rows: Ints) -> list[SampleLocation]:
        """Return the locations of the samples in these rows. Raises NoIndex if the files of a large index are damaged."""
        if self.folder is None:
            return self._locate(rows)
        try:
            with parsing(self.folder):
                return self._locate(rows)
        except NoIndex:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise NoIndex(f"{self.folder} was damaged and has been removed. Run the same command again to rebuild it") from None

    def _locate(self, rows: Ints) -> list[SampleLocation]:
        arrays = self.arrays
        runs = np.searchsorted(arrays["run_starts"], rows, "right") - 1
        layouts = arrays["layout"][rows]
        counts = np.array([len(names) for names in self.layouts], np.int64)[layouts]
        ends = np.cumsum(counts)
        inside = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        spans = arrays["members"][np.repeat(arrays["first_member"][rows], counts) + inside]
        offsets = spans[:, 0].astype(np.int64) + np.repeat(arrays["origin"][rows], counts)
        names = [self.layouts[layout] for layout in layouts.tolist()]
        columns = (_rows_of(offsets, counts), _rows_of(spans[:, 1], counts))
        whole = zip(rows.tolist(), self.keys(rows), arrays["run_shards"][runs].tolist(), names, *columns, strict=True)
        return list(map(SampleLocation._make, whole))

    def keys(self, rows: Ints) -> list[str]:
        """Return the keys of the samples in these rows. Raises ValueError if the files of a large index are damaged."""
        ends, data = self.arrays["key_ends"], self.arrays["keys"]
        if self.folder is not None:  # with a damaged offset, Arrow would read outside of the file
            starts, stops = ends[rows], ends[rows + 1]
            if starts.min(initial=0) < 0 or (stops < starts).any() or stops.max(initial=0) > len(data):
                raise ValueError("the offset of a key is outside of the file `keys`")
        column = pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(ends), pa.py_buffer(data))
        # not pa.array(rows), which imports pandas and delays the first batch by 0.2 s
        wanted = pa.Int64Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))])
        return pc.take(column, wanted).to_pylist()


def open_mapped(folder: Path) -> FlatIndex:
    """Return the index that `_map` wrote to a folder, with its arrays mapped read-only.

    Raises FileNotFoundError if a file is missing, and NoIndex if a file is damaged.
    """
    with parsing(folder):
        facts = json.loads((folder / "facts.json").read_text())
        arrays = {}
        for name, (dtype, shape) in facts["arrays"].items():
            # viewed as a plain array, because indexing numpy's memmap class is slow
            arrays[name] = np.memmap(folder / name, dtype, "r", shape=tuple(shape)).view(np.ndarray)
        runs, starts = arrays["run_shards"], arrays["run_starts"]
        if runs.min() < 0 or runs.max() >= len(facts["shards"]) or starts[0] or (np.diff(starts) <= 0).any():
            raise ValueError("the first rows of the shards do not ascend from 0, or a shard number is out of range")
        layouts = [tuple(names) for names in facts["layouts"]]
        return FlatIndex(facts["shards"], layouts, facts["digest"], arrays, facts["base"], folder)


def open_index(file: Path, cache: Path) -> FlatIndex:
    """Return the index in a file. A large index is read once, and then mapped from files in the folder `cache`.

    Raises NoIndex if the file is not an index or is damaged, NoSamples if it holds no samples, and OSError if it cannot be
    read.
    """
    stat = file.stat()
    facts = f"{FLAT_VERSION} {file.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    folder = cache / "flat" / xxhash.xxh3_64_hexdigest(facts.encode())
    if folder.exists():  # this folder is checked first, because parsing the footer of 100 million rows takes 0.2 s
        with suppress(NoIndex, FileNotFoundError):
            return open_mapped(folder)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged folder is rebuilt from the index file
    with parsing(file):
        if pq.read_metadata(file).num_rows < MAPPED_ROWS:
            return _flatten(file)
        _map(file, folder)
    return open_mapped(folder)


def _map(file: Path, folder: Path) -> None:
    """Write the flat arrays of an index file to a folder, in constant memory. The folder is created atomically."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        index = _flatten(file, part)
        arrays = {name: (array.dtype.str, array.shape) for name, array in index.arrays.items()}
        facts = {"shards": index.shards, "layouts": index.layouts, "digest": index.digest, "arrays": arrays, "base": index.base}
        (part / "facts.json").write_text(json.dumps(facts))
        with suppress(OSError):  # another process created it first
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _flatten(file: Path, folder: Path | None = None) -> FlatIndex:
    """Return the flat arrays of an index file, which is read one row group at a time.

    With `folder`, the arrays are files in this folder.
    """
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    check_schema(parquet.schema_arrow, file)
    flattener = _Flattener(folder, np.dtype(np.uint32 if _largest_span(parquet) < 1 << 32 else np.uint64))
    for number in range(parquet.num_row_groups):
        table = parquet.read_row_group(number, columns=["key", "shard", "offset", "members"])
        for batch in table.combine_chunks().to_batches():
            batch.validate(full=True)  # a damaged dictionary or list may point outside its values
            flattener.add(batch)
    if not flattener.rows:
        raise NoSamples(f"{file} holds no samples")
    noted = (parquet.schema_arrow.metadata or {}).get(b"base")
    return flattener.finish(None if noted is None else noted.decode())


def _largest_span(file: pq.ParquetFile) -> int:
    """Return the size of the largest sample in bytes.

    All sizes are read, because the column's statistics may be damaged and then crash Arrow.
    """
    largest = 0
    for number in range(file.num_row_groups):
        largest = max(largest, pc.max(file.read_row_group(number, columns=["size"])["size"]).as_py() or 0)
    return largest


class _Flattener:
    """Collects the columns of an index batch by batch.

    The hash of the columns does not depend on the boundaries of the batches.
    """

    def __init__(self, folder: Path | None, span: np.dtype) -> None:
        self.span = span
        self.folder = folder
        self.shards: dict[str, int] = {}
        self.names: dict[str, int] = {}
        self.layouts: dict[int, int] = {}
        self.layout_names: list[tuple[str, ...]] = []
        self.parts: dict[str, list[NDArray[Any]]] = {}
        self.hashes = {name: xxhash.xxh3_64() for name in ("shards", "key_sizes", "keys", "layouts", "origin", "members")}
        self.rows = self.members = self.key_bytes = 0
        self.last_shard = -1
        self.ends = np.zeros(0, np.int64)  # end of the last member of each shard, in bytes

    def add(self, batch: pa.RecordBatch) -> None:
        """Append the rows of a batch. Raises ValueError if the rows are invalid."""
        members, origin = batch["members"], numbers_of(batch["offset"])
        counts = np.diff(numbers_of(members.offsets))
        flat = members.flatten()
        if any(column.null_count for column in (batch["key"], batch["shard"], members, flat, flat.field("name"))):
            raise ValueError("the column 'key', 'shard' or 'members' has a null value")
        begins, sizes = numbers_of(flat.field("offset")), numbers_of(flat.field("size"))
        offsets = begins - np.repeat(origin, counts)
        spans = np.stack([offsets, sizes], axis=1)
        if (
            min(origin.min(initial=0), (offsets - BLOCK).min(initial=0), sizes.min(initial=0), (begins + sizes).min(initial=0))
            < 0
        ):
            raise ValueError("a member is before the start of its sample or has a negative size")
        shards = self._add_shards(batch["shard"])
        self._add_ends(np.repeat(shards, counts), begins + sizes)
        self._add_keys(batch["key"].cast(pa.large_string()))
        self._add_layouts(flat.field("name"), counts)
        self._put("origin", origin)
        self._put("first_member", self.members + np.cumsum(counts) - counts)
        self._put("members", spans.astype(self.span))
        self._hash("origin", origin)
        self._hash("members", spans)
        self.members += len(spans)
        self.rows += len(batch)

    def _put(self, name: str, values: NDArray[Any]) -> None:
        """Append values to the array `name`.

        If there is a folder, the values are appended to the array's file in it, and `finish` maps the file.
        """
        if self.folder is not None:
            with open(self.folder / name, "ab") as file:
                file.write(np.ascontiguousarray(values).data)
            values = np.empty((0, *values.shape[1:]), values.dtype)  # an empty array that keeps the type and the width
        self.parts.setdefault(name, []).append(values)

    def _hash(self, name: str, values: NDArray[Any]) -> None:
        self.hashes[name].update(np.ascontiguousarray(values).data)

    def _add_ends(self, shards: Ints, ends: Ints) -> None:
        known = np.zeros(len(self.shards), np.int64)
        known[: len(self.ends)] = self.ends
        np.maximum.at(known, shards, ends)
        self.ends = known

    def _add_shards(self, shard: pa.Array) -> Ints:
        shard = shard.cast(pa.string()).dictionary_encode()  # encoded again, to have only the names in use, in the order of use
        numbers = [self.shards.setdefault(name, len(self.shards)) for name in shard.dictionary.to_pylist()]
        shards = np.array(numbers, np.int32)[numbers_of(shard.indices)]
        changes = np.flatnonzero(np.diff(shards, prepend=self.last_shard))
        self.last_shard = shards[-1]
        self._put("run_starts", self.rows + changes)
        self._put("run_shards", shards[changes])
        self._hash("shards", shards)
        return shards

    def _add_keys(self, keys: pa.LargeStringArray) -> None:
        _, ends_buffer, text_buffer = keys.buffers()
        ends = np.frombuffer(ends_buffer, np.int64)[keys.offset : keys.offset + len(keys) + 1]
        text = np.frombuffer(text_buffer or b"", np.uint8)[ends[0] : ends[-1]]
        if not self.rows:
            self._put("key_ends", np.zeros(1, np.int64))
        self._put("key_ends", self.key_bytes + ends[1:] - ends[0])
        self._put("keys", text)
        self._hash("key_sizes", np.diff(ends))
        self._hash("keys", text)
        self.key_bytes += len(text)

    def _add_layouts(self, names: pa.Array, counts: Ints) -> None:
        """Append, for each sample, the number that identifies its layout. A layout is a tuple of member names.

        Layouts with the same 64-bit hash are taken as equal.
        """
        encoded = names.dictionary_encode()
        known = [self.names.setdefault(name, len(self.names)) for name in encoded.dictionary.to_pylist()]
        codes = np.array(known, np.int64)[numbers_of(encoded.indices)]
        starts = np.cumsum(counts) - counts
        place = np.arange(len(codes)) - np.repeat(starts, counts)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(noise(key(1), codes * 65_536 + place), dtype=np.uint64)])
        hashes = sums[starts + counts] - sums[starts]
        found, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        numbers = []
        for value, first in zip(found.tolist(), firsts.tolist(), strict=True):
            if value not in self.layouts:
                self.layouts[value] = len(self.layout_names)
                span = names.slice(int(starts[first]), int(counts[first]))
                self.layout_names.append(tuple(span.to_pylist()))
            numbers.append(self.layouts[value])
        self._put("layout", np.array(numbers, np.uint32)[inverse])
        self._hash("layouts", hashes)

    def finish(self, base: str | None) -> FlatIndex:
        """Return the index of all added batches. `base` is the recorded folder or address of the tars."""
        self._put("shard_ends", -(-self.ends // BLOCK) * BLOCK)
        arrays = {}
        for name, parts in self.parts.items():
            if self.folder is not None:
                width = parts[0].shape[1:]
                arrays[name] = np.memmap(self.folder / name, parts[0].dtype, "r").reshape(-1, *width)
            else:
                arrays[name] = np.concatenate(parts)
        digest = xxhash.xxh3_64(json.dumps([list(self.shards), list(self.names)]).encode())
        for part in self.hashes.values():
            digest.update(part.digest())
        return FlatIndex(list(self.shards), self.layout_names, digest.hexdigest(), arrays, base)
