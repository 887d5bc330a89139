"""Stored scores as numbers, for the steps that decide on them: of images or of rows, held against a threshold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vlmdata.row import aligned, flatten, numbers


def is_of_images(rows: pa.Table, column: str) -> bool:
    """Say whether a measured column holds a value for each image, or one for the row."""
    return pa.types.is_list(rows[column].type)


def of_images(rows: pa.Table, column: str) -> np.ndarray:
    """Return a score for every position of `images`, float64, NaN where there is none; a row's own goes for all its images."""
    if is_of_images(rows, column):
        return aligned(rows, column, "images")
    return of_rows(rows, column)[flatten(rows, "images").parents]


def of_rows(rows: pa.Table, column: str) -> np.ndarray:
    """Return a row's own score, float64, NaN where there is none."""
    return numbers(rows[column].combine_chunks())


def as_stored(threshold: float, rows: pa.Table, column: str) -> float:
    """Return the threshold as the column's type holds it: 0.26 in single precision is a little less than in double, and a
    score of 0.26 is not below 0.26."""
    kind = rows[column].type
    kind = kind.value_type if pa.types.is_list(kind) else kind
    return float(np.float32(threshold)) if pa.types.is_float32(kind) else threshold
