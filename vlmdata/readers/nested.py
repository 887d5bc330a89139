"""Convert Arrow rows of any type to Python values."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from vlmdata.readers.strings import caption_text, clean, decode

# bytes that are not UTF-8; a year of five digits; an unknown time zone; structs nested too deeply
UNCONVERTIBLE = (ValueError, OverflowError, KeyError, RecursionError)


def plain_rows(batch: pa.RecordBatch | pa.Table) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield each row as Python values, and whether a text in it cannot be decoded.

    Such a text has U+FFFD for wrong bytes, or is null. Times with years or time zones that Python does not support become texts
    or numbers.
    """
    columns, wrong = {}, [False] * len(batch)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values, bad = plain_values(column)
        columns[name] = values
        wrong = [one or other for one, other in zip(wrong, bad, strict=True)]
    for number in range(len(batch)):
        yield {name: values[number] for name, values in columns.items()}, wrong[number]


def plain_values(column: pa.Array | pa.ChunkedArray) -> tuple[list[Any], list[bool]]:
    """Return a column as Python values, and for each value whether a text in it cannot be decoded."""
    try:
        return column.to_pylist(), [False] * len(column)
    except UNCONVERTIBLE:
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
        except UNCONVERTIBLE:
            values.append(None)
            bad.append(True)
    return values, bad


def holds_bytes(value: object) -> bool:
    """Say whether a Python value is or holds bytes."""
    if isinstance(value, Mapping):
        return any(map(holds_bytes, value.values()))
    if isinstance(value, list):
        return any(map(holds_bytes, value))
    return isinstance(value, bytes)


def flat(value: object) -> list[Any]:
    """Return a value, a list or a list of lists as one flat list, and [] for None."""
    if isinstance(value, list):
        return [one for part in value for one in (part if isinstance(part, list) else [part])]
    return [] if value is None else [value]


def listed(value: object) -> Any:
    """Return the list if a value is JSON text of a list of texts. Return any other value unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, list) and all(isinstance(one, str | None) for one in found) else value


def texts_in(value: object) -> tuple[list[str], str | None]:
    """Return the texts in a value, and the reason why one of them cannot be used (bad_encoding or no_text), or None.

    Numbers and UTF-8 bytes count as texts, and JSON text of a list of texts counts as that list. Several numbers without a text
    give `no_text`, because they are token ids or positions.
    """
    found: list[str] = []
    values = [one for one in flat(value) if one is not None]
    fault = "no_text" if len(values) > 1 and all(isinstance(one, int | float) for one in values) else None
    for one in values:
        said, wrong = _texts_of(one)
        found += said
        fault = fault or wrong
    return found, fault


def _texts_of(value: object) -> tuple[list[str], str | None]:
    if isinstance(value, bytes):
        try:
            value = caption_text(value, "utf-8")
        except UnicodeDecodeError:
            return [], "bad_encoding"
    if isinstance(value, str):
        raw = [one for one in flat(listed(value)) if one is not None]
        texts = [clean(one) for one in raw]
        return texts, "bad_encoding" if texts != raw else None  # an unpaired surrogate
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [str(value)] if math.isfinite(value) else [], None
    return [], None if value is None else "no_text"
