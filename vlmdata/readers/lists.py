"""Read lists in any common format as a stream of chunks of columns, so that memory does not grow with the list."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.catalog import suggest
from vlmdata.readers import delimited, json_records
from vlmdata.readers.column_types import Content, check_parquet, check_values
from vlmdata.readers.dotted_paths import NO_TEXT, column_at, names_in, reach, resolve
from vlmdata.readers.find_files import File, is_remote
from vlmdata.readers.open_file import COMPRESSED, UNREADABLE, bare_name, opened, seekable
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import Bad
from vlmdata.readers.strings import decode
from vlmdata.readers.tar_samples import names_within
from vlmdata.step import RecipeError
from vlmdata.untrusted import one_line

Format = Literal["auto", "parquet", "csv", "tsv", "json", "jsonl", "txt"]
ENDING = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
ENDING[".txt"] = "txt"
ENDINGS = [e + c for e in ENDING for c in ("", *COMPRESSED)]
ROWS = 50_000  # rows in a chunk
HEAD = 100  # records of JSON whose fields are read
CHECKED_FILES = 20  # files whose columns `check` reads in any case
CHECKED_SCHEMAS = 1000  # files whose columns `check` reads if they are local Parquet
CHECK_S = 1.5  # for all files after the first 20; `check` as a whole may take 3 s
LINE = "line"  # the only column of a text file


@dataclass(frozen=True)
class ListFormat:
    """How to read a list: its format (auto: as the file name states), its encoding, and options for CSV and TSV."""

    format: Format = "auto"
    encoding: str = "utf-8"
    names: Sequence[str] = ()  # the column names of CSV and TSV without a header
    delimiter: str = ""
    quoted: bool | None = None


@dataclass(frozen=True)
class Chunk:
    """Some rows of a list: the wanted columns, as Arrow arrays or Python values, and the other columns as JSON objects."""

    columns: dict[str, Any]
    extra: pa.Array | None
    bad_encoding: np.ndarray  # for each row, whether a value in `extra` cannot be decoded
    bad_records: list[Bad]  # records that cannot be read, which are not rows


def format_of(path: str, layout: ListFormat) -> str:
    """Return the format that the recipe or the file name states. Raises RecipeError if neither states it."""
    if layout.format != "auto":
        return layout.format
    name = bare_name(path)
    for ending, found in ENDING.items():
        if name.endswith(ending):
            return found
    known = ", ".join(sorted(set(ENDING.values())))
    raise RecipeError(f"{path}: the file name does not state the format. Set `format:` to one of {known}")


def column_names(path: str, layout: ListFormat) -> list[str] | None:
    """Return the column names of a list, or None if it has no row.

    For JSON, the names are collected from the first 100 records.
    """
    kind = format_of(path, layout)
    if kind == "txt":
        return [LINE]
    if kind == "parquet":
        with seekable(path) as file:
            parquet = open_parquet(file, path)
            return parquet and names_in(parquet.schema_arrow)
    with opened(path) as file:
        if kind in ("csv", "tsv"):
            return delimited.header(file, kind, layout.encoding, layout.delimiter, layout.names)
        records = list(itertools.islice(json_records.items(file, kind, layout.encoding), HEAD))
        return _fields(records) if records else None


def _fields(records: Iterable[Any]) -> list[str]:
    """Return the names of the fields of JSON objects. Other values have none."""
    return list(dict.fromkeys(name for record in records if isinstance(record, dict) for name in record))


def check_file(
    path: str, layout: ListFormat, wanted: Sequence[str], contents: Mapping[str, Content], *, keeps_all: bool = False
) -> None:
    """Raise RecipeError if a list lacks a column in `wanted` (see `check_columns`), or if a column cannot hold its content.

    Also raises it if Parquet has a name twice that is in `wanted` or, with `keeps_all`, that is the name of any kept column.
    A list without rows may lack columns, and a column without values may have any type, except that of addresses. In JSON, the
    first 100 records are checked.
    """
    kind = format_of(path, layout)
    if kind == "parquet":
        with seekable(path) as file:
            parquet = parquet_file(file, path)
            if parquet is not None:
                schema = parquet.schema_arrow
                if parquet.metadata.num_rows:
                    check_columns(path, names_in(schema), wanted)
                    _check_single(path, schema, [*wanted, *(_carried(schema, wanted) if keeps_all else ())])
                check_parquet(path, parquet, contents)
    elif kind in ("json", "jsonl"):
        with opened(path) as file:
            if records := list(itertools.islice(json_records.items(file, kind, layout.encoding), HEAD)):
                check_columns(path, _fields(records), wanted)
                check_values(path, records, contents)
    elif (names := column_names(path, layout)) is not None:
        check_columns(path, names, wanted)


def checked_files(files: Sequence[File], kind_of: Callable[[str], str]) -> Iterator[str]:
    """Yield the paths of the files whose columns `check` reads. `kind_of` returns the format of a path.

    They are the first 20 files, and of the other files local Parquet, whose columns take a millisecond to read: at most 1,000
    files, and only for 1.5 s. A run finds a mistake in any other file when it makes its plan, before it fetches anything.
    """
    end = time.monotonic() + CHECK_S
    for number, (path, _) in enumerate(files[:CHECKED_SCHEMAS]):
        if number < CHECKED_FILES:
            yield path
        elif time.monotonic() > end:
            return
        elif kind_of(path) == "parquet" and not is_remote(path) and not path.lower().endswith(tuple(COMPRESSED)):
            yield path


def first_columns(files: Sequence[File], layout: ListFormat, used: Collection[str]) -> list[str]:
    """Return the columns of the first file that has a row, without those in `used`."""
    found = (names for file in files if (names := column_names(file.path, layout)) is not None)
    return [name for name in next(found, []) if name not in used]


def named_pieces(files: Sequence[File]) -> list[dict[str, Any]]:
    """Return one piece (a unit of work) for each file, with the file's path and its name within the common folder.

    The place that the command `why` shows for a record begins with this name.
    """
    return [{"path": file.path, "name": name} for file, name in zip(files, names_within(files), strict=True)]


def check_columns(path: str, known: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise RecipeError, which suggests the nearest name, if a wanted column or struct field is missing."""
    for name in wanted:
        found = resolve(name, known)
        if found is None or (found[1] and any(one.startswith(f"{found[0]}.") for one in known)):
            near = delimited.odd_header(known) or suggest(name, list(known))
            why = "" if known else " No record could be read as an object with named fields."
            raise RecipeError(f"{path}: there is no column '{name}'.{near}{why}")


def chunks(
    file: File,
    layout: ListFormat,
    wanted: Sequence[str],
    extra: Mapping[str, str] | Literal["all"],
    parts: range | None = None,
    *,
    rows: int = ROWS,
) -> Iterator[Chunk]:
    """Yield the rows of a list in chunks, in order.

    `wanted` names the columns to return. `extra` maps new names to other columns to keep as JSON, or is "all" to keep all other
    columns. `parts` selects row groups of a Parquet file. `rows` limits the rows of a chunk, except in CSV and TSV. Raises
    RecipeError for a file that is damaged or lacks a column.
    """
    kind = format_of(file.path, layout)
    if kind == "parquet":
        with seekable(file.path) as stream:
            yield from _parquet_chunks(stream, file.path, wanted, extra, parts, rows)
        return
    with opened(file.path) as stream:
        if kind in ("csv", "tsv"):
            of = (layout.encoding, layout.delimiter, layout.names, layout.quoted)
            for table, bad in delimited.tables(stream, kind, *of):
                yield _from_table(file.path, table, wanted, extra, bad, layout.encoding)
            return
        for good, bad in json_records.batches(stream, kind, layout.encoding, rows):
            yield _from_records(file.path, good, wanted, extra, bad, is_text=kind == "txt")


def with_places(name: str, some: Iterable[Chunk]) -> Iterator[tuple[Chunk, Callable[[int], str]]]:
    """Yield each chunk with a function that turns a row's index into its place in the list `name`.

    A place holds the row number, counted from 1. A record that cannot be read counts as one row.
    """
    first = 1
    bad: list[int] = []  # numbers of unreadable records at or after `first`; a reader may know them a chunk early
    for chunk in some:
        bad += sorted(record.number for record in chunk.bad_records if record.number)
        before = [number - first - others for others, number in enumerate(bad)]  # readable rows of the chunk before each
        yield chunk, functools.partial(_row_in, name, first, before)
        passed = bisect.bisect_left(before, len(chunk.bad_encoding))
        first += len(chunk.bad_encoding) + passed
        del bad[:passed]


def _row_in(name: str, first: int, before: list[int], number: int) -> str:
    return f"{name}, row {first + number + bisect.bisect_right(before, number)}"


def open_parquet(stream: Any, path: str) -> pq.ParquetFile | None:
    """Open a Parquet file for streaming, or return None if it is empty or has no row.

    Raises RecipeError if the file cannot be read.
    """
    parquet = parquet_file(stream, path)
    return parquet if parquet is not None and parquet.metadata.num_rows else None


def parquet_file(stream: Any, path: str) -> pq.ParquetFile | None:
    """Open a Parquet file for streaming, or return None if it has no byte. Raises RecipeError if the file cannot be read."""
    if not stream.seek(0, os.SEEK_END):
        return None
    try:
        # read pages, not column chunks; pre_buffer would keep the whole file in memory
        return pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
    except UNREADABLE as error:
        raise RecipeError(f"{path} cannot be read as Parquet: {one_line(error)}") from None


def _parquet_chunks(
    stream: Any, path: str, wanted: Sequence[str], extra: Mapping[str, str] | Literal["all"], parts: range | None, rows: int
) -> Iterator[Chunk]:
    parquet = open_parquet(stream, path)
    if parquet is None:
        return
    known = parquet.schema_arrow
    check_columns(path, names_in(known), [*wanted, *(extra.values() if extra != "all" else ())])
    others = _carried(known, wanted) if extra == "all" else extra
    names = _check_single(path, known, [*wanted, *others.values()])
    groups = None if parts is None else list(parts)
    try:
        for batch in parquet.iter_batches(batch_size=rows, columns=names, row_groups=groups):
            yield _from_table(path, pa.table(batch), wanted, others, [], "utf-8")
    except UNREADABLE as error:
        raise RecipeError(f"{path} cannot be read as Parquet: {one_line(error)}") from None


def _check_single(path: str, schema: pa.Schema, wanted: Sequence[str]) -> list[str]:
    """Return the columns that hold these names or dotted paths. Raises RecipeError if there are several with one name."""
    names = list(dict.fromkeys(_column(name, schema.names) for name in wanted))
    counts = Counter(schema.names)
    if twice := [name for name in names if counts[name] > 1]:
        raise RecipeError(f"{path}: several columns have the name '{twice[0]}'. Rename one, or name other columns in `extra:`")
    return names


def _column(name: str, known: Sequence[str]) -> str:
    found = resolve(name, known)
    assert found is not None, "columns were checked"
    return found[0]


def _carried(schema: pa.Schema, wanted: Sequence[str]) -> dict[str, str]:
    """Return the columns that `extra: all` keeps, as a dict from each name to itself.

    The columns `wanted`, pandas' index and columns of bytes are left out.
    """
    return {
        field.name: field.name
        for field in schema
        if field.name not in wanted and not field.name.startswith("__index_level_") and not _holds_bytes(field.type)
    }


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    is_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(holds(kind) for holds in is_bytes)


def _from_table(
    path: str,
    table: pa.Table,
    wanted: Sequence[str],
    extra: Mapping[str, str] | Literal["all"],
    bad: list[Bad],
    encoding: str,
) -> Chunk:
    if extra == "all":
        extra = {name: name for name in table.column_names if name not in wanted}
    check_columns(path, table.column_names, [*wanted, *extra.values()])
    wrong = np.zeros(len(table), bool)
    values: dict[str, list[Any]] = {}
    for new, old in extra.items():
        column = _at(table, old, encoding)
        if isinstance(column, list):
            wrong |= np.array([value == NO_TEXT for value in column], bool)
            values[new] = column
            continue
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
        try:
            column, bad_here = decode(column, encoding)
            wrong |= bad_here
        except TypeError:
            pass  # numbers and lists stay as they are
        values[new] = _plain(path, old, column)
    json = [json_object(dict(zip(values, row, strict=True))) for row in zip(*values.values(), strict=True)]
    carried = pa.array(json, pa.string()) if values else None
    return Chunk({name: _at(table, name, encoding, NO_TEXT) for name in wanted}, carried, wrong, bad)


def _at(table: pa.Table, name: str, encoding: str, otherwise: bytes | None = None) -> Any:
    """Return the values of a column or at a dotted path, as an Arrow array or a list of Python values.

    `otherwise` is as in `reach`.
    """
    found = resolve(name, table.column_names)
    assert found is not None, "columns were checked"
    return column_at(table[found[0]].combine_chunks(), found[1], encoding, otherwise)


def _plain(path: str, name: str, column: pa.Array) -> list[Any]:
    """Return a column as Python values. Dates that Python does not support become texts."""
    try:
        return column.to_pylist()
    except (OverflowError, ValueError, KeyError) as error:  # a year of five digits, undecodable bytes, an unknown time zone
        if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
            with contextlib.suppress(pa.ArrowInvalid):
                return column.cast(pa.string()).to_pylist()
        raise RecipeError(
            f"{path}: the column '{name}' ({column.type}) cannot be kept: {error}. Name other columns in `extra:`"
        ) from None


def _from_records(
    path: str,
    rows: list[dict[str, Any]],
    wanted: Sequence[str],
    extra: Mapping[str, str] | Literal["all"],
    bad: list[Bad],
    *,
    is_text: bool,
) -> Chunk:
    columns = {name: [_field(row, name, NO_TEXT) for row in rows] for name in wanted}
    for name, values in columns.items():
        if any(rows) and all(value is None for value in values):
            check_columns(path, list(dict.fromkeys(key for row in rows for key in row)), [name])
    if is_text or (extra != "all" and not extra):
        return Chunk(columns, None, np.zeros(len(rows), bool), bad)
    if extra == "all":
        others = [{name: value for name, value in row.items() if name not in wanted} for row in rows]
    else:
        others = [{new: _field(row, old) for new, old in extra.items()} for row in rows]
    return Chunk(columns, *_as_json(others), bad)


def _as_json(records: list[dict[str, Any]]) -> tuple[pa.Array, np.ndarray]:
    """Return records as JSON texts, and for each record whether it holds an unpaired surrogate.

    An empty record becomes null, and so does a record with an unpaired surrogate.
    """
    texts = [json_object(one) if one else None for one in records]
    try:
        return pa.array(texts, pa.string()), np.zeros(len(records), bool)
    except UnicodeEncodeError:
        wrong = np.array([text is not None and not _encodes(text) for text in texts], dtype=bool)
        return pa.array([None if w else t for t, w in zip(texts, wrong, strict=True)], pa.string()), wrong


def _field(row: dict[str, Any], name: str, otherwise: bytes | None = None) -> Any:
    return row[name] if name in row else reach(row, name.split("."), otherwise) if "." in name else None


def _encodes(text: str) -> bool:
    return text.encode("utf-8", "replace") == text.encode("utf-8", "surrogatepass")
