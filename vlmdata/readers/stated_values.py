"""Parse the boxes, sizes and hashes that a list states. Each format of a list stores them in its own types."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pyarrow as pa

_HASH = re.compile("(?:md5:|sha256:)?([0-9a-fA-F]{32}|[0-9a-fA-F]{64})")
BOXES = pa.list_(pa.list_(pa.float64(), 4))


def whole_numbers(column: Any) -> pa.Array:
    """Return numbers, or texts of numbers, as int32. Negative numbers, numbers above 2**31 - 1 and other values become null."""
    values = column if isinstance(column, list) else column.to_pylist()
    return pa.array([_whole(value) for value in values], pa.int32())


def _whole(value: Any) -> int | None:
    try:
        number = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < 1 << 31 else None


def hash_column(column: Any) -> pa.Array:
    """Return MD5 and SHA-256 hashes as lower-case hex, and other values as null.

    A hash is bytes, or hex with or without the prefix `md5:` or `sha256:`.
    """
    values = column if isinstance(column, list) else column.to_pylist()
    return pa.array([_hash(value) for value in values], pa.string())


def _hash(value: Any) -> str | None:
    if isinstance(value, bytes) and len(value) in (16, 32) and not _HASH.fullmatch(value.decode("latin-1")):
        return value.hex()
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    found = _HASH.fullmatch(text.strip()) if isinstance(text, str) else None
    return found[1].lower() if found else None


def box_column(column: Any, sizes: tuple[pa.Array, pa.Array] | None = None) -> pa.Array:
    """Return boxes as lists of (x0, y0, x1, y1) in pixels.

    If `sizes` (widths, heights) is given, the coordinates in `column` are fractions of the sizes. Lists and JSON text are
    accepted. A box that is not four finite numbers is left out. A row without boxes is null.
    """
    values = column if isinstance(column, list) else column.to_pylist()
    widths, heights = ([1] * len(values), [1] * len(values)) if sizes is None else (s.to_pylist() for s in sizes)
    rows = [boxes(value, w, h) for value, w, h in zip(values, widths, heights, strict=True)]
    return pa.array(rows, BOXES)


def boxes(value: Any, width: int | None = 1, height: int | None = 1) -> list[list[float]] | None:
    """Return the boxes in lists or JSON text, with x multiplied by `width` and y by `height`, or None if there is no box."""
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or not width or not height:
        return None
    found = []
    for box in value:
        try:
            x0, y0, x1, y1 = (float(number) for number in box)
        except (TypeError, ValueError, OverflowError):
            continue
        if all(map(math.isfinite, (x0, y0, x1, y1))):
            found.append([x0 * width, y0 * height, x1 * width, y1 * height])
    return found or None
