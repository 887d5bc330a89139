"""Checks the .npy files of embeddings that a user names in a recipe, before a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlmdata.errors import RecipeError
from vlmdata.home_folder import at_home


def npy_shape(path: str, parameter: str) -> tuple[int, ...]:
    """Return the shape of a .npy file of numbers. Only its header is read.

    Raises RecipeError, with the parameter of the recipe that names the file, if there is no such file or if it is another file.
    """
    if not Path(at_home(path)).is_file():
        raise RecipeError(f"{parameter}: there is no file {path}. Set {parameter} to a .npy file, as numpy.save writes it")
    try:
        array = np.load(at_home(path), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        array = None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":  # np.load also opens archives (.npz)
        raise RecipeError(f"{parameter}: {path} is not a .npy file of numbers. Write the array with numpy.save")
    return array.shape
