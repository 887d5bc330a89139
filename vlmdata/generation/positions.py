"""Adds positions at the end of rows, for texts that a step writes. Positions that exist never change."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.generator import ANSWERS, ASKED
from vlmdata.row import ROW, in_one, set_column


def with_positions(rows: pa.Table, counts: np.ndarray) -> pa.Table:
    """Return the rows with `counts[i]` nulls at the end of row i's `images`, and of every measured list aligned with it.

    The caller adds the same number of items to `texts`, and to `roles` and `turns` if the row has them.
    """
    if not counts.any():
        return rows
    positions = list_lengths(in_one(rows["images"]))
    for name in rows.column_names:
        column = in_one(rows[name])
        is_of_row = name in ROW.names and name not in ("images", "stated_hashes")
        if is_of_row or not pa.types.is_list(column.type) or column.type in (ANSWERS, ASKED):
            continue
        grows = np.where(list_lengths(column) == positions, counts, 0)
        lengths = np.maximum(list_lengths(column), 0)
        offsets = np.concatenate([[0], np.cumsum(lengths + grows)])
        take = np.full(offsets[-1], -1)
        starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        old = np.arange(lengths.sum())
        take[old + np.repeat(offsets[:-1] - starts, lengths)] = old
        items = column.flatten().take(pa.array(take, mask=take < 0))
        mask = column.is_null() if column.null_count else None
        rows = set_column(rows, name, pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, mask=mask))
    return rows


def list_lengths(column: pa.Array) -> np.ndarray:
    """Return the length of each list, and -1 for null."""
    return np.asarray(pc.fill_null(pc.list_value_length(column), -1), dtype=np.int64)
