"""Reads the .npy files of embeddings that a user names in a recipe, and checks them before a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlmdata.errors import RecipeError
from vlmdata.home_folder import at_home
from vlmdata.similarity.units import has_direction
from vlmdata.untrusted import errors_as

ROWS_AT_ONCE = 4096  # embeddings that are read at a time: 8 MiB at a width of 512


def npy_shape(path: str, parameter: str) -> tuple[int, ...]:
    """Return the shape of a .npy file of numbers. Only its header is read.

    Raises RecipeError, with the parameter of the recipe that names the file, if there is no such file or if it is another file.
    """
    if not Path(at_home(path)).is_file():
        raise RecipeError(f"{parameter}: there is no file {path}. Set {parameter} to a .npy file, as numpy.save writes it")
    unusable = RecipeError(f"{parameter}: {path} is not a .npy file of numbers. Write the array with numpy.save")
    with errors_as(lambda error: unusable, passes=(OSError,)):  # a damaged header raises many kinds of errors
        array = np.load(at_home(path), mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":  # np.load also opens archives (.npz)
        raise unusable
    return array.shape


def blocks_of(path: str) -> Iterator[np.ndarray]:
    """Yield the rows of an .npy file in order, in blocks (at most `ROWS_AT_ONCE`, D). The file is mapped into memory."""
    array = np.load(at_home(path), mmap_mode="r", allow_pickle=False)
    for start in range(0, len(array), ROWS_AT_ONCE):
        yield np.asarray(array[start : start + ROWS_AT_ONCE])


def row_without_direction(path: str) -> int | None:
    """Return the number of the first row of an .npy file (N, D) that is all zeros or not finite, or None if there is none."""
    start = 0
    for block in blocks_of(path):
        good = has_direction(block)
        if not good.all():
            return start + int(np.flatnonzero(~good)[0])
        start += len(block)
    return None


def stamp_of(path: str) -> tuple[int, int]:
    """Return the size of a file and the time of its last change, so that what is cached is not that of an earlier file."""
    found = Path(at_home(path)).stat()
    return found.st_size, found.st_mtime_ns
