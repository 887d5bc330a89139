"""Turn tables that name image files into rows: the metadata of Hugging Face's image folders, or a list beside images."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence, Set
from typing import Any, Literal

import pyarrow as pa

from vlmdata.fields import renamed
from vlmdata.readers import lists, source_images
from vlmdata.readers.captions import caption_column
from vlmdata.readers.find_files import File
from vlmdata.readers.nested import plain_values
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_records, captioned, tables, with_place
from vlmdata.readers.source_images import ADDRESSES, image_named, keep_addresses
from vlmdata.readers.strings import clean, decode, is_blank


def named_rows(
    path: str,
    table_name: str,
    file: str,
    captions: Sequence[str],
    *,
    extra: Literal["all"] | Sequence[str],
    encoding: str = "utf-8",
    window: range | None = None,
) -> Iterator[pa.Table]:
    """Yield the rows of a table whose column `file` holds one or several file names, relative to the table's folder.

    `table_name` is the table's name in the source. It is the first part of each row's place, which the command `why` shows.
    `window` selects rows, counted from 0. A row with a name that cannot be decoded is dropped as `bad_encoding`.
    """
    layout = lists.ListFormat(encoding=encoding)
    addresses = set() if extra == "all" else set(ADDRESSES) & set(lists.column_names(path, layout) or ())
    carried = extra if extra == "all" else {name: name for name in (*extra, *sorted(addresses))}
    row_of = functools.partial(_row, folder=path.rpartition("/")[0], unwanted=addresses - set(extra), needs_text=bool(captions))
    start = 0
    found = lists.chunks(File(path, 0), layout, [file, *captions], carried)
    for chunk, where in lists.with_places(table_name, found):
        names, misnamed = _names(chunk.columns[file], encoding)
        texts, others, bad = caption_column([chunk.columns[name] for name in captions] or [[None] * len(names)], encoding)
        kept = chunk.extra.to_pylist() if chunk.extra is not None else [None] * len(names)
        rest = others.to_pylist() if others is not None else [None] * len(names)
        wrong = [a or b or c for a, b, c in zip(misnamed, bad.tolist(), chunk.bad_encoding.tolist(), strict=True)]
        rows = list(zip(names, texts.to_pylist(), rest, kept, wrong, strict=True))
        first, end = (0, len(rows)) if window is None else (max(0, window.start - start), max(0, window.stop - start))
        here = enumerate(rows[first:end], first)
        yield from tables(with_place(row_of(*row), where(number), source_images.name_in_source(row[0])) for number, row in here)
        if chunk.bad_records and (window is None or start in window):
            yield bad_records(table_name, chunk.bad_records)
        start += len(rows)
        if window is not None and start >= window.stop:
            return


def count_rows(path: str, file: str) -> int:
    """Return the number of rows of a table, without opening an image."""
    return sum(len(chunk.bad_encoding) for chunk in lists.chunks(File(path, 0), lists.ListFormat(), [file], {}))


def _row(
    name: Any, text: str, others: Any, kept: str | None, wrong: bool, *, folder: str, unwanted: Set[str], needs_text: bool
) -> dict[str, Any]:
    names = name if isinstance(name, list) and name else [name]
    images = [image_named(one, folder) for one in names]
    carried = json.loads(kept or "{}")
    used = keep_addresses(images, carried) | unwanted
    extra = {field: value for field, value in carried.items() if field not in used}
    return captioned(
        images,
        [text, *(others or [])],
        id=f"{name}\n{text}\n{others}",
        extra=json_object({**renamed(extra, ["file_name"]), "file_name": name}),
        reason="bad_encoding" if wrong else "no_caption" if needs_text and is_blank(text) and not others else None,
    )


def _names(column: Any, encoding: str) -> tuple[list[Any], list[bool]]:
    """Return the names in a column, and for each whether it cannot be decoded. A name is a text, a list of texts or None."""
    bad = [False] * len(column)
    if not isinstance(column, list):
        try:
            names, undecoded = decode(column, encoding)
            return names.to_pylist(), undecoded.tolist()
        except TypeError:
            column, bad = plain_values(column)
    names = [[_name(one) for one in value] if isinstance(value, list) else _name(value) for value in column]
    return names, [wrong or _is_bad(value) for wrong, value in zip(bad, column, strict=True)]


def _name(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return clean(value) if isinstance(value, str) else None


def _is_bad(value: object) -> bool:
    """Say whether a text, or one of a list of texts, holds an unpaired surrogate."""
    return any(map(_is_bad, value)) if isinstance(value, list) else isinstance(value, str) and clean(value) != value
