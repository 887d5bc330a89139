"""Build rows one by one from Python values, for sources with inline images or conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from vlmdata.readers.pair_rows import dropped, json_object, one_text
from vlmdata.readers.strings import is_blank
from vlmdata.row import ROW

BATCH = 1000  # rows in a table
BATCH_BYTES = 64 << 20  # bytes of inline images and text in a table
_TYPES = {**{field.name: field.type for field in ROW}, "id": pa.string()}


def pair(
    image: Mapping[str, Any], captions: Sequence[str], *, origins: Sequence[str | None] = (), **fields: Any
) -> dict[str, Any]:
    """Return the row of a caption pair. A `reason` in `fields` drops the row. Otherwise, a `reason` of the image drops it.

    `origins` is as in `text_of`.
    """
    row = {"images": [dict(image), None], "texts": [None, text_of(captions, origins)], **fields}
    return reject(row, fields.get("reason") or image.get("reason"))


def captioned(
    images: Sequence[Mapping[str, Any]], captions: Sequence[str], *, origins: Sequence[str | None] = (), **fields: Any
) -> dict[str, Any]:
    """Return the row of one or more images that share one text.

    A single image gives a caption pair. Several images give a document with the images before the text. The row is dropped if
    `fields` has a `reason`, or if every image has one. In the second case, the reason of the first image is the row's reason.
    `origins` is as in `text_of`.
    """
    if len(images) == 1:
        return pair(images[0], captions, origins=origins, **fields)
    row = {"images": [*map(dict, images), None], "texts": [*[None] * len(images), text_of(captions, origins)], **fields}
    lost = images[0].get("reason") if all(one.get("reason") for one in images) else None
    return reject(row, fields.get("reason") or lost)


def text_of(captions: Sequence[str], origins: Sequence[str | None] = ()) -> dict[str, Any]:
    """Return captions as a text with alternatives, as a dict of fields of TEXT.

    `origins` holds the origins of the last captions; those before them came from the source. The text is the first caption of
    the source that is not blank, or "". The alternatives are the other distinct captions.
    """
    if not any(origins):
        text, others = one_text(captions)
        return {"text": text, "alternatives": others}
    wrote: dict[str, str | None] = {}  # caption -> origin
    for caption, origin in zip(captions, [*[None] * (len(captions) - len(origins)), *origins], strict=True):
        if not is_blank(caption):
            wrote.setdefault(caption, origin)
    text = next((caption for caption, origin in wrote.items() if origin is None), "")
    wrote.pop(text, None)
    return {"text": text, "alternatives": list(wrote) or None, "origins": list(wrote.values()) if any(wrote.values()) else None}


def reject(row: dict[str, Any], reason: str | None) -> dict[str, Any]:
    """Return a row, marked as dropped by its source if there is a reason."""
    return {**row, "drop": "source", "reason": reason} if reason else row


def with_place(row: dict[str, Any], where: str, problem: str | None = None) -> dict[str, Any]:
    """Return a row, with `where` as its `place` if the row is dropped or has no address.

    A place that the row already has is kept. If a later step drops the row, the command `why` shows the place. If the row is
    already dropped, a problem is added too: that of the row's first image with a `problem`, or else `problem`.
    """
    if row.get("drop"):
        named = (image.get("problem") for image in row.get("images") or () if image)
        return {"place": where, "problem": next(filter(None, named), problem), **row}
    has_address = row.get("url") or any(image and image.get("url") for image in row.get("images") or ())
    return row if has_address else {"place": where, **row}


def bad_record(
    file: str, problem: str, *, byte: int | None = None, line: int | None = None, reason: str = "bad_record", **fields: Any
) -> dict[str, Any]:
    """Return a row, marked as dropped, for a record that cannot be read. The command `why` shows the row's place and problem.

    The place consists of `file`, the file's name within the source, and of `byte` or `line`. `byte` counts from 0 in the
    decompressed file, and `line` counts from 1. If `fields` has no `id`, the reason and the place identify the row.
    """
    where = place(file, byte=byte, line=line)
    return reject({"id": f"{reason}\n{where}", "place": where, "problem": problem, **fields}, reason)


class Bad(NamedTuple):
    """A record of a list that cannot be read. `line` counts from 1 and is None in formats without lines."""

    reason: str
    text: str  # the record's text
    problem: str
    line: int | None
    number: int = 0  # of the record in its list, from 1; 0 if unknown


def bad_records(file: str, raw: Sequence[Bad]) -> pa.Table:
    """Return a table with a dropped row for each record in `raw`. `file` is the file's name within the source.

    The reason and the record's text identify the row, and `extra` shows the first 200 characters of the text.
    """
    columns = {
        "id": [f"{one.reason}\n{one.text}" for one in raw],
        "extra": [json_object({"record": one.text[:200]}) for one in raw],
        "place": [place(file, line=one.line) for one in raw],
        "problem": [one.problem for one in raw],
    }
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return pa.table({**arrays, **dropped([one.reason for one in raw])})


def place(file: str, *, byte: int | None = None, line: int | None = None) -> str:
    """Return a record's place as text: its file, byte and line."""
    return file + (f", byte {byte}" if byte is not None else "") + (f", line {line}" if line is not None else "")


def document(positions: Iterable[Mapping[str, Any] | str | None], **fields: Any) -> dict[str, Any]:
    """Return a document from its positions: mappings are images, strings are texts, and None is an empty position."""
    row: dict[str, Any] = {"images": [], "texts": [], **fields}
    for position in positions:
        is_text = isinstance(position, str)
        row["images"].append(None if is_text else position)
        row["texts"].append({"text": position} if is_text else None)
    return row


def tables(rows: Iterable[dict[str, Any]]) -> Iterator[pa.Table]:
    """Yield the rows in tables of at most 1000 rows and about 64 MiB of inline images and text."""
    batch: list[dict[str, Any]] = []
    held = 0
    for row in rows:
        batch.append(row)
        held += sum(len(image.get("data") or b"") for image in row.get("images") or () if image)
        held += len(row.get("extra") or "") + sum(len(text["text"]) for text in row.get("texts") or () if text)
        if len(batch) == BATCH or held >= BATCH_BYTES:
            yield _table(batch)
            batch, held = [], 0
    if batch:
        yield _table(batch)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    names = [name for name in _TYPES if any(name in row for row in rows)]
    return pa.table({name: pa.array([row.get(name) for row in rows], _TYPES[name]) for name in names})
