"""Checks of a command's arguments before torch is imported, so that mistakes are reported at once."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from vlmdata.loader.index.find_tars import find_shards, is_remote
from vlmdata.loader.index.index_file import INDEX_FILE
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import check_checkpoint, check_start
from vlmdata_train.recipe import Recipe


def check_training(recipe: Recipe) -> None:
    """Raise RecipeError if data is missing or `start` is invalid."""
    if recipe.start is not None:
        check_start(recipe.start)
    for path in recipe.data if isinstance(recipe.data, dict) else [recipe.data]:
        check_data(path, "data")
    if recipe.held_out.path is not None:
        check_data(recipe.held_out.path, "held_out.path")


def check_evaluation(checkpoint: str, data: str, *, samples: int, answer_tokens: int) -> None:
    """Raise RecipeError if the folder is not a checkpoint, data is missing, or a number is out of range."""
    check_least(1, **{"--samples": samples, "--answer-tokens": answer_tokens})
    check_checkpoint(Path(checkpoint))
    check_data(data, "data")


def check_chat(checkpoint: str, images: Sequence[str], *, max_tokens: int, temperature: float) -> None:
    """Raise RecipeError if the folder is not a checkpoint, an image is missing, or a number is out of range."""
    check_least(1, **{"--max-tokens": max_tokens})
    check_least(0, **{"--temperature": temperature})
    check_checkpoint(Path(checkpoint))
    for image in images:
        if not os.path.isfile(image):
            raise RecipeError(f"cannot read {image} as an image: there is no such file")


def check_export(checkpoint: str, folder: str) -> None:
    """Raise RecipeError if `checkpoint` is not a checkpoint, or if `folder` is not a new or empty folder."""
    check_checkpoint(Path(checkpoint))
    if os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise RecipeError(f"{folder} is not empty. Choose another folder")


def check_least(least: int, **options: float) -> None:
    """Raise RecipeError for the first option whose number is less than `least`, infinite or NaN."""
    for name, number in options.items():
        if not least <= number < math.inf:
            raise RecipeError(f"{name} must be {least} or more, not {number}")


def check_data(path: str, where: str) -> None:
    """Raise RecipeError if a local path is not a dataset. The message begins with `where`. Tars are not opened."""
    if (
        is_remote(path)
        or (path.endswith(".parquet") and os.path.isfile(path))
        or os.path.isfile(os.path.join(path, INDEX_FILE))
    ):
        return
    try:
        find_shards(path)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from None
