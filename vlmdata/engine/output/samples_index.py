"""Reads the index and the samples of a dataset. Both are checked before use, because they may come from strangers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.engine.store.parquet_files import damage, open_parquet
from vlmdata.engine.store.store_protocol import Store
from vlmdata.loader.index.index_file import INDEX_FILE
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.step import RecipeError
from vlmdata.untrusted import errors_as

NAME = r"^[0-9A-Za-z_-][0-9A-Za-z._-]{0,250}$"  # the name of a sample or a member, as vlmdata writes it; it cannot be a path
TAR = r"^[0-9A-Za-z_-][0-9A-Za-z._-]{0,250}\.tar$"
CHECKED = ("key", "shard", "offset", "size", "members")


class SamplesIndex:
    """An open index.parquet. Its `schema` has the columns of every index (the loader's INDEX), then one column per score."""

    def __init__(self, store: Store, file: pq.ParquetFile) -> None:
        self._store, self._file = store, file
        self.schema: pa.Schema = file.schema_arrow

    def groups(self, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
        """Yield the rows, one row group at a time. Raises RecipeError for a row that vlmdata cannot have written."""
        wanted = None if columns is None else [name for name in self.schema.names if name in {*columns, *CHECKED}]
        for number in range(self._file.num_row_groups):
            table = self._file.read_row_group(number, columns=wanted)
            if fault := _fault(table):
                raise damage(self._store, INDEX_FILE, fault)
            yield table if columns is None else table.select([name for name in self.schema.names if name in columns])


@contextlib.contextmanager
def open_index(store: Store) -> Iterator[SamplesIndex]:
    """Open the index of a dataset for the block. Raises RecipeError, which names the index, if the index is damaged."""
    with open_parquet(store, INDEX_FILE) as file:
        yield SamplesIndex(store, file)


def _fault(table: pa.Table) -> str | None:
    """Return what is wrong with rows of the index, or None if they are valid.

    Names must have the form that vlmdata writes. Each sample must have exactly one member `json`, and no member may reach
    outside of its sample.
    """
    table.validate(full=True)  # finds a damaged dictionary or list, which points outside of its values
    members = table["members"].combine_chunks()
    flat = members.flatten()
    names = [table["key"], table["shard"].cast(pa.string()), flat.field("name")]
    numbers = [table["offset"], table["size"], flat.field("offset"), flat.field("size")]
    if any(column.null_count for column in (*names, *numbers, members, flat)):
        return "a key, a tar, an offset, a size or a member is missing"
    for column, pattern in zip(names, (NAME, TAR, NAME), strict=True):
        odd = column.filter(pc.invert(pc.match_substring_regex(column, pattern)))
        if len(odd):
            return f"{odd[0].as_py()[:200]!r} is not a valid name of a sample, a tar or a member"
    parents = np.repeat(np.arange(len(table)), np.asarray(pc.list_value_length(members)))
    start, size, at, length = (np.asarray(column) for column in numbers)
    inside = at - start[parents]
    if (
        (start < 0).any()
        or (at < 0).any()
        or (length < 0).any()
        or (inside < 0).any()
        or (length > size[parents] - inside).any()
    ):
        return "a member is outside of its sample"
    facts = np.bincount(parents[np.asarray(pc.equal(flat.field("name"), "json"))], minlength=len(table))
    if (facts != 1).any():
        return f"the sample {table['key'][int(np.argmax(facts != 1))]} has {facts[facts != 1][0]} members named json, not one"
    return None


def places(line: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the (offset, size) of each member in a row of the index, by the member's name."""
    return {member["name"]: (member["offset"], member["size"]) for member in line["members"]}


def read_span(store: Store, shard: str, offset: int, size: int) -> bytes:
    """Return `size` bytes of a tar from `offset`. Raises RecipeError if the tar is too short."""
    data = store.read_range(shard, offset, size)
    if len(data) != size:
        raise _short(store, shard, offset + size)
    return data


def read_open(store: Store, shard: str, opened: IO[bytes], offset: int, size: int) -> bytes:
    """Return `size` bytes of an open tar from `offset`. Raises RecipeError if the tar is too short."""
    if size > opened.seek(0, 2) - offset:  # check first, because `size` may be wrong, and read() allocates it
        raise _short(store, shard, offset + size)
    opened.seek(offset)
    return opened.read(size)


def _short(store: Store, shard: str, end: int) -> RecipeError:
    return RecipeError(
        f"{store.url}/{shard} ends before byte {end}, but {INDEX_FILE} lists a sample that ends there. "
        "Restore both files, or build the dataset again"
    )


@contextlib.contextmanager
def sample_of(store: Store, shard: str, key: str) -> Iterator[None]:
    """Turn errors in the block, which reads a sample's bytes, into a RecipeError that names the tar and the sample."""

    def convert(error: Exception) -> Exception:
        if is_short_of_memory(error):
            return error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return RecipeError(f"{store.url}/{shard}, sample {key}: {reason}. Restore the tar, or build the dataset again")

    with errors_as(convert, passes=(RecipeError, OSError)):  # damage can be JSON of any shape or a malformed tar
        yield
