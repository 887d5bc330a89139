"""Checks of a command's arguments before torch is imported, so that mistakes are reported at once."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmdata.loader.index.find_tars import find_shards, is_remote
from vlmdata.loader.index.index_file import INDEX_FILE
from vlmdata.loader.index.missing_tars import MANIFEST
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import check_checkpoint, check_start
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.recipe import Recipe


def check_training(recipe: Recipe) -> None:
    """Raise RecipeError if data is missing, or if `start` or `out` is invalid."""
    if recipe.start is not None:
        check_start(recipe.start)
    for folder in (Path(recipe.out), *Path(recipe.out).parents):
        if folder.exists() and not folder.is_dir():
            raise RecipeError(f"out: {folder} is a file, but the run needs a folder. Choose another `out`")
    if (Path(recipe.out) / MANIFEST).is_file():
        raise RecipeError(f"out: {recipe.out} is a dataset. Choose another `out` for the checkpoints")
    for path in recipe.data if isinstance(recipe.data, dict) else [recipe.data]:
        check_data(path, "data")
    if recipe.held_out.path is not None:
        check_data(recipe.held_out.path, "held_out.path")


def check_evaluation(checkpoint: str, data: str, *, samples: int, answer_tokens: int) -> None:
    """Raise RecipeError if the folder is not a checkpoint, data is missing, or a number is out of range."""
    _check_counts(**{"--samples": samples, "--answer-tokens": answer_tokens})
    check_checkpoint(Path(checkpoint))
    check_data(data, "data")


def check_chat(checkpoint: str, images: Sequence[str], videos: Sequence[str], *, max_tokens: int, fps: float) -> None:
    """Raise RecipeError if the folder is not a checkpoint, an image or a video is missing, or a number is out of range."""
    _check_counts(**{"--max-tokens": max_tokens})
    if not 0.00001 <= fps <= 100_000:  # so that the time of each frame is a finite number
        raise RecipeError(f"--fps must be from 0.00001 to 100000, not {fps}")
    check_checkpoint(Path(checkpoint))
    for image in images:
        if not os.path.isfile(image):
            hint = f". For a folder of frames, use --video {image}" if os.path.isdir(image) else ""
            raise RecipeError(f"cannot read {image} as an image: there is no such file{hint}")
    for video in videos:
        frames_in(video)


def check_serving(checkpoint: str, *, port: int, batch: int) -> None:
    """Raise RecipeError if the folder is not a checkpoint, or if a number is out of range."""
    _check_counts(**{"--batch": batch})
    if not 0 <= port <= 65_535:
        raise RecipeError(f"--port must be from 0 to 65535, not {port}")
    check_checkpoint(Path(checkpoint))


def read_decoding(**options: Any) -> Decoding:
    """Return the decoding that options of the command line describe. Raises RecipeError with the name of a wrong option."""
    try:
        return Decoding(**options)
    except ValueError as error:
        raise RecipeError(f"--{error}".replace("_", "-")) from None


def frames_in(folder: str) -> list[Path]:
    """Return the files in a folder of frames, in the order of their names. Numbers in names count as numbers: 2 precedes 10.

    Hidden files are left out. Raises RecipeError if there is no folder or no file.
    """
    if not os.path.isdir(folder):
        raise RecipeError(f"--video {folder}: there is no such folder. A video is a folder of image files, one for each frame")
    files = [path for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise RecipeError(f"--video {folder}: the folder has no files. A video is a folder of image files, one for each frame")
    return sorted(files, key=lambda path: [(part.isdecimal() and int(part), part) for part in re.split(r"(\d+)", path.name)])


def check_export(checkpoint: str, folder: str, *, adapter: bool, dtype: str | None) -> None:
    """Raise RecipeError if `checkpoint` is not a checkpoint, if `folder` is not a new or empty folder, or if both options are
    used."""
    if adapter and dtype is not None:
        raise RecipeError("--dtype: an adapter has the data type of its run. Omit --dtype")
    check_checkpoint(Path(checkpoint))
    if os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise RecipeError(f"{folder} is not empty. Choose another folder")


def _check_counts(**options: int) -> None:
    """Raise RecipeError for the first option that is less than 1 or too large for a count of Python."""
    for name, number in options.items():
        if not 1 <= number <= sys.maxsize:
            raise RecipeError(f"{name} must be 1 or more{' and less than 2**63' * (number > 1)}, not {number}")


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
