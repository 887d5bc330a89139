"""Parse the boxes with labels, sizes and hashes that a list states. Each format of a list stores them in its own types."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pyarrow as pa

from vlmdata.readers.strings import clean, is_blank
from vlmdata.row import IMAGE

_HASH = re.compile("(?:md5:|sha256:)?([0-9a-fA-F]{32}|[0-9a-fA-F]{64})")
BOXES = IMAGE.field("boxes").type
LABELS = IMAGE.field("box_labels").type
Box = list[float]  # x0, y0, x1, y1


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


def box_columns(
    column: Any, labels: Any = None, sizes: tuple[pa.Array, pa.Array] | None = None
) -> tuple[pa.Array, pa.Array, dict[int, Any]]:
    """Return boxes, their labels, and the labels that do not fit the boxes of their row, by row number: see `labelled_boxes`.

    `labels` is the column of labels, or None. Boxes are lists of (x0, y0, x1, y1) in pixels. If `sizes` (widths, heights) is
    given, the coordinates in `column` are fractions of the sizes.
    """
    values = _listed(column)
    said = [None] * len(values) if labels is None else _listed(labels)
    widths, heights = ([1] * len(values), [1] * len(values)) if sizes is None else (s.to_pylist() for s in sizes)
    found = [labelled_boxes(value, names, w, h) for value, names, w, h in zip(values, said, widths, heights, strict=True)]
    unfit = {row: names for row, names in enumerate(said) if found[row][1] is None and not _is_empty(names)}
    return pa.array([one for one, _ in found], BOXES), pa.array([one for _, one in found], LABELS), unfit


def _listed(column: Any) -> list[Any]:
    return column if isinstance(column, list) else column.to_pylist()


def labelled_boxes(
    value: Any, labels: Any, width: int | None = 1, height: int | None = 1, *, keeps_null: bool = False
) -> tuple[list[Box | None] | None, list[str | None] | None]:
    """Return the boxes in lists or JSON text, and a label or None for each. Either list is None if it would hold nothing.

    Each x is multiplied by `width`, and each y by `height`. A box that is not four finite numbers is left out with its label.
    With `keeps_null`, a null stays with its label: in a sample's JSON, it stands for a box outside of the stored image.
    `labels` is a list, or JSON text of a list, with a text or null for each entry of `value`, also for a broken one. Anything
    else counts as no labels. A blank label becomes None, and an unpaired surrogate becomes a question mark.
    """
    entries, names = _parsed(value), _parsed(labels)
    if not isinstance(entries, list) or not width or not height:
        return None, None
    if not isinstance(names, list) or len(names) != len(entries) or not all(isinstance(one, str | None) for one in names):
        names = [None] * len(entries)
    found = [(box(one, width, height), name) for one, name in zip(entries, names, strict=True)]
    kept = [two for two, one in zip(found, entries, strict=True) if two[0] is not None or (one is None and keeps_null)]
    said = [None if name is None or is_blank(name) else clean(name) for _, name in kept]
    return [place for place, _ in kept] or None, said if any(said) else None


def box(value: Any, width: int = 1, height: int = 1) -> Box | None:
    """Return a box as [x0 * width, y0 * height, x1 * width, y1 * height], or None if it is not four finite numbers."""
    try:
        x0, y0, x1, y1 = (float(number) for number in value)
    except (TypeError, ValueError, OverflowError):
        return None
    found = [x0 * width, y0 * height, x1 * width, y1 * height]
    return found if all(map(math.isfinite, found)) else None


def _parsed(value: Any) -> Any:
    """Return the value of a JSON text, or None for a text that is not JSON. Other values are returned unchanged."""
    if isinstance(value, str | bytes):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value


def _is_empty(labels: Any) -> bool:
    found = _parsed(labels)
    if isinstance(found, list):
        return all(one is None or one == "" for one in found)
    return found is None and (labels is None or labels.strip() in ("", "null", b"", b"null"))
