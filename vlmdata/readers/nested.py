"""Rows of Arrow batches as plain values, whatever they hold."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from vlmdata.readers.strings import caption_text, clean, decode

# bytes that are no UTF-8; a year of five digits; an unknown time zone; structs in structs without end
UNSAYABLE = (ValueError, OverflowError, KeyError, RecursionError)


def plain_rows(batch: pa.RecordBatch | pa.Table) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield each row as plain values, and whether a text of it does not decode (its bytes are then U+FFFD, or the value null).

    Times beyond the years or in time zones that Python does not know become texts or numbers.
    """
    columns, wrong = {}, [False] * len(batch)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values, bad = plain_values(column)
        columns[name] = values
        wrong = [one or other for one, other in zip(wrong, bad, strict=True)]
    for number in range(len(batch)):
        yield {name: values[number] for name, values in columns.items()}, wrong[number]


def plain_values(column: pa.Array | pa.ChunkedArray) -> tuple[list[Any], list[bool]]:
    """Return a column as plain values, and of each whether a text in it does not decode."""
    try:
        return column.to_pylist(), [False] * len(column)
    except UNSAYABLE:
        pass
    if pa.types.is_temporal(column.type):
        for kind in (pa.string(), pa.int64()):
            with contextlib.suppress(pa.ArrowException):
                return column.cast(kind).to_pylist(), [False] * len(column)
    with contextlib.suppress(TypeError):
        texts, bad = decode(column)
        return texts.to_pylist(), bad.tolist()
    return _one_by_one(column)


def _one_by_one(column: pa.Array | pa.ChunkedArray) -> tuple[list[Any], list[bool]]:
    values, bad = [], []
    for scalar in column:
        try:
            values.append(scalar.as_py())
            bad.append(False)
        except UNSAYABLE:
            values.append(None)
            bad.append(True)
    return values, bad


def holds_bytes(value: object) -> bool:
    """Say whether a plain value is bytes or has some within it."""
    if isinstance(value, Mapping):
        return any(map(holds_bytes, value.values()))
    if isinstance(value, list):
        return any(map(holds_bytes, value))
    return isinstance(value, bytes)


def flat(value: object) -> list[Any]:
    """Return a value, or those of a list, or of a list of lists, as one list; None is none."""
    if isinstance(value, list):
        return [one for part in value for one in (part if isinstance(part, list) else [part])]
    return [] if value is None else [value]


def listed(value: object) -> Any:
    """Return the texts of a list in JSON, anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, list) and all(isinstance(one, str | None) for one in found) else value


def words(value: object) -> tuple[list[str], str | None]:
    """Return the texts that a value holds, and why one is none: bad_encoding, no_text.

    Texts are numbers and UTF-8 bytes too; a text that is a list of texts in JSON stands for them. Several numbers and no text
    are tokens or places.
    """
    found: list[str] = []
    values = [one for one in flat(value) if one is not None]
    fault = "no_text" if len(values) > 1 and all(isinstance(one, int | float) for one in values) else None
    for one in values:
        said, wrong = _said(one)
        found += said
        fault = fault or wrong
    return found, fault


def _said(value: object) -> tuple[list[str], str | None]:
    if isinstance(value, bytes):
        try:
            value = caption_text(value, "utf-8")
        except UnicodeDecodeError:
            return [], "bad_encoding"
    if isinstance(value, str):
        raw = [one for one in flat(listed(value)) if one is not None]
        texts = [clean(one) for one in raw]
        return texts, "bad_encoding" if texts != raw else None  # half a surrogate pair
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [str(value)] if math.isfinite(value) else [], None
    return [], None if value is None else "no_text"
