"""Stored scores of images or rows as float64, for steps that compare them with a threshold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vlmdata.row import aligned, flatten, numbers


def is_of_images(rows: pa.Table, column: str) -> bool:
    """Return whether a measured column has a value per image; otherwise it has one per row."""
    return pa.types.is_list(rows[column].type)


def of_images(rows: pa.Table, column: str) -> np.ndarray:
    """Return a score for every position of `images`, float64, NaN if missing. A row's score applies to all its images."""
    if is_of_images(rows, column):
        return aligned(rows, column, "images")
    return of_rows(rows, column)[flatten(rows, "images").parents]


def of_rows(rows: pa.Table, column: str) -> np.ndarray:
    """Return a score per row, float64, NaN if missing."""
    return numbers(rows[column].combine_chunks())


def as_stored(threshold: float, rows: pa.Table, column: str) -> float:
    """Return the threshold rounded to the column's type: 0.26 in single precision is slightly below 0.26 in double, and a
    score of 0.26 must not count as below 0.26."""
    kind = rows[column].type
    kind = kind.value_type if pa.types.is_list(kind) else kind
    return float(np.float32(threshold)) if pa.types.is_float32(kind) else threshold
