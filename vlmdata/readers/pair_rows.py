"""Build rows of caption pairs column by column. Position 0 is the image, and position 1 is the text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vlmdata.readers.strings import is_blank
from vlmdata.row import IMAGE, TEXT


def pairs(
    image: Mapping[str, pa.Array],
    text: pa.Array | None,
    *,
    alternatives: pa.Array | None = None,
    extra: pa.Array | None = None,
    reason: Sequence[str | None] | None = None,
) -> pa.Table:
    """Return a table with a row for each of N images.

    `image` maps fields of IMAGE to arrays of N values. `reason` holds the reason why each row is dropped, or None.
    """
    count = len(next(iter(image.values())))
    columns = {"images": _interleave(image, count, 0, 2 if text is not None else 1)}
    if text is not None:
        fields = {"text": text} if alternatives is None else {"text": text, "alternatives": alternatives}
        columns["texts"] = _interleave(fields, count, 1, 2)
    if extra is not None:
        columns["extra"] = extra
    if reason is not None:
        columns.update(dropped(reason))
    return pa.table(columns)


def dropped(reason: Sequence[str | None]) -> dict[str, pa.Array]:
    """Return the columns `drop` and `reason` of rows that the source drops. Both are null if a row has no reason."""
    return {
        "drop": pa.array([None if one is None else "source" for one in reason], pa.string()),
        "reason": pa.array(list(reason), pa.string()),
    }


def _interleave(fields: Mapping[str, pa.Array], count: int, place: int, width: int) -> pa.ListArray:
    """Return `count` lists of `width` positions. The position `place` holds a struct of `fields`, and the others are null."""
    types = {field.name: field.type for field in (*IMAGE, *TEXT)}
    take = np.zeros(count * width, dtype=np.int64)
    take[place::width] = np.arange(count)
    holds = np.zeros(count * width, dtype=bool)
    holds[place::width] = True
    index = pa.array(take, mask=~holds)
    arrays = [array.cast(types[name]).take(index) for name, array in fields.items()]
    names = [pa.field(name, types[name]) for name in fields]
    items = pa.StructArray.from_arrays(arrays, fields=names, mask=pa.array(~holds))
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * width), items)


def one_text(captions: Sequence[str]) -> tuple[str, list[str] | None]:
    """Return the first caption that is not blank, and a list of the other distinct captions.

    The caption is "" if all are blank. The list is None if there are no others.
    """
    distinct = list(dict.fromkeys(caption for caption in captions if not is_blank(caption)))
    return (distinct[0], distinct[1:] or None) if distinct else ("", None)


def json_object(values: Mapping[str, Any]) -> str:
    """Return a mapping as a JSON object. Values that JSON lacks become text, but NaN and infinities become null."""
    try:
        return json.dumps(values, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(values), ensure_ascii=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
