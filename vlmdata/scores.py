"""Stored scores of images or rows as float64, for steps that compare them with a threshold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vlmdata.row import aligned, flatten, numbers


def is_of_images(rows: pa.Table, column: str) -> bool:
    """Return whether a measured column has one value per image, rather than one value per row."""
    return pa.types.is_list(rows[column].type)


def of_images(rows: pa.Table, column: str) -> np.ndarray:
    """Return a score for every position of `images`: float64, with NaN if it is missing.

    If the column has a score per row, all images of a row get the row's score.
    """
    if is_of_images(rows, column):
        return aligned(rows, column, "images")
    return of_rows(rows, column)[flatten(rows, "images").parents]


def of_rows(rows: pa.Table, column: str) -> np.ndarray:
    """Return a score for every row: float64, with NaN if it is missing."""
    return numbers(rows[column].combine_chunks())


def as_stored(threshold: float, rows: pa.Table, column: str) -> float:
    """Return the threshold rounded to the column's type.

    The float32 score 0.26 is slightly below the float64 threshold 0.26, but must not count as below the threshold.
    """
    kind = rows[column].type
    kind = kind.value_type if pa.types.is_list(kind) else kind
    return float(np.float32(threshold)) if pa.types.is_float32(kind) else threshold


def highest_of_rows(scores: np.ndarray, parents: np.ndarray, count: int) -> np.ndarray:
    """Return the highest score of each of `count` rows, with NaN for a row without scores: (N,) -> (count,).

    `scores` holds a value or NaN for each image, and `parents` (N,) the number of its row.
    """
    found = np.full(count, np.nan)
    np.fmax.at(found, parents, scores)
    return found
