"""Read conversation records as rows with their images. Turns have `from` and `value`, `role` and `content`, or similar."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import Any

import pyarrow as pa

from vlmdata.readers import json_records, lists
from vlmdata.readers.column_types import TURNS
from vlmdata.readers.conversation_rows import conversation, record_tables
from vlmdata.readers.dialogue import read_dialogue
from vlmdata.readers.exported_rows import chat_columns
from vlmdata.readers.file_formats import format_within
from vlmdata.readers.find_files import File
from vlmdata.readers.lists import Format, ListFormat, check_columns, column_names, first_columns, open_parquet
from vlmdata.readers.nested import holds_bytes, plain_rows
from vlmdata.readers.open_file import UNREADABLE, opened, seekable
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import Bad, reject
from vlmdata.readers.source_images import image_named, keep_addresses
from vlmdata.readers.strings import clean
from vlmdata.readers.tool_calls import OFFERS, Unfit
from vlmdata.step import RecipeError
from vlmdata.untrusted import one_line

FORMATS: tuple[Format, ...] = ("json", "jsonl", "parquet")
BATCH = 5000  # records in a batch
ENDINGS = [ending for ending in lists.ENDINGS if ending.startswith((".json", ".ndjson", ".parquet"))]


def conversation_tables(
    path: str, name: str, turns: Sequence[str], images: Sequence[str], folder: str, joined: bool
) -> Iterator[pa.Table]:
    """Yield tables of a file's records as rows. `name` is the file's name in the source.

    `turns` and `images` are as in `read_dialogue`, `folder` is as in `image_named`, and `joined` is as in `record_tables`.
    """
    nulls = format_within(path, FORMATS) != "parquet"  # Parquet's structs hold the fields of all rows, most of them null

    def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
        return conversation_row(record, turns, images, folder, nulls=nulls)

    return record_tables(conversation_records(path), name, row_of, joined)


def conversation_row(
    record: Mapping[str, Any], turns: Sequence[str], images: Sequence[str], folder: str, *, nulls: bool = True
) -> dict[str, Any]:
    """Return a conversation record as a row.

    A record that cannot be used for training becomes a dropped row that states the reason.
    """
    identity = clean(json_object(record))
    try:
        found = read_dialogue(record, turns, images, lambda where: image_named(where, folder), nulls=nulls)
    except Unfit as error:
        return reject({"id": identity, "extra": _extra(record, {*turns, *images})}, str(error))
    shown = [part for message in found.messages for part in message.parts if isinstance(part, dict)]
    extra = _extra(record, found.used | keep_addresses(shown, record))
    return conversation(found.messages, tools=found.tools, id=identity, extra=extra)


def conversation_records(path: str) -> Iterator[tuple[list[tuple[int, dict[str, Any]]], list[Bad]]]:
    """Yield (good, bad) for batches of a file's records. `good` holds pairs (number from 1, record); `bad` holds bad records.

    Raises RecipeError if the file is not JSON, JSON lines or Parquet.
    """
    kind = format_within(path, FORMATS)
    if kind == "parquet":
        yield from _parquet(path)
        return
    with opened(path) as file:
        numbered = enumerate(json_records.items(file, kind, "utf-8"), 1)
        while some := list(itertools.islice(numbered, BATCH)):
            good = [(number, one) for number, one in some if not isinstance(one, Bad)]
            yield good, [one for _, one in some if isinstance(one, Bad)]


def check_conversations(files: Sequence[File], turns: Sequence[str]) -> None:
    """Raise RecipeError if a file is not JSON, JSON lines or Parquet, or if none of its fields `turns` can hold turns.

    The files are those of `checked_files`.
    """
    for path in lists.checked_files(files, lambda path: format_within(path, FORMATS)):
        layout = ListFormat(format=format_within(path, FORMATS))
        names = column_names(path, layout)
        if names and not set(turns) & set(names):
            check_columns(path, names, turns[:1])
        lists.check_file(path, layout, [], dict.fromkeys(turns, TURNS))


def conversation_columns(files: Sequence[File], used: Collection[str]) -> list[str]:
    """Return the fields of the first file that has a record, except the fields in `used` and the fields for offered tools."""
    used = {*used, *OFFERS}
    return first_columns(files, ListFormat(format=format_within(files[0].path, FORMATS)), used) if files else []


def _parquet(path: str) -> Iterator[tuple[list[tuple[int, dict[str, Any]]], list[Bad]]]:
    with seekable(path) as file:
        parquet = open_parquet(file, path)
        first = 1
        try:
            for batch in parquet.iter_batches(batch_size=200) if parquet else ():
                rows = list(enumerate(plain_rows(batch), first))
                bad = [
                    Bad("bad_encoding", clean(json_object(record)), f"row {number} holds text that cannot be decoded", None)
                    for number, (record, undecoded) in rows
                    if undecoded
                ]
                first += len(rows)
                yield [(number, record) for number, (record, undecoded) in rows if not undecoded], bad
        except UNREADABLE as error:
            raise RecipeError(f"{path} cannot be read as Parquet: {one_line(error)}") from None


def _extra(record: Mapping[str, Any], used: Set[str]) -> str | None:
    extra = chat_columns(record)
    if extra is None:
        extra = {name: value for name, value in record.items() if name not in used and not holds_bytes(value)}
    return clean(json_object(extra)) if extra else None
