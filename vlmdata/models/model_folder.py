"""Check and identify a model of transformers, which is a folder or a name on the Hugging Face Hub, without loading it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlmdata.errors import RecipeError
from vlmdata.models.weights_identity import identity
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.untrusted import shown

MOST_CONFIG = 16 << 20  # bytes of config.json
WEIGHTS = ("*.safetensors", "*.bin")


def folder_of(model: str) -> Path | None:
    """Return the folder that `model` names, or None for a name on the Hub."""
    folder = Path(model).expanduser()
    return folder if model and folder.is_dir() else None


def folder_or_name(model: str) -> Path | None:
    """Return the folder that `model` names, or None for a possible name on the Hub, which is not looked up.

    Raises RecipeError, whose message begins with "model", if it is neither.
    """
    folder = folder_of(model)
    is_path = not model or Path(model).expanduser().is_absolute() or model.startswith((".", "~")) or model.count("/") > 1
    if folder is None and is_path:
        raise RecipeError(f"model: there is no folder {shown(model)}")
    return folder


def model_identity(model: str) -> str:
    """Return a hash of the files of a model folder, or the name of a model on the Hub."""
    folder = folder_of(model)
    return identity(str(folder)) if folder is not None else model


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Raise RecipeError if the block cannot load a name on the Hub, such as without a network.

    The errors of a folder, and those of the system, are raised as they are.
    """
    try:
        yield
    except OSError as error:
        # an error of the system, such as a full disk, has a number; an error that transformers raises has none
        if folder_of(model) is not None or error.errno is not None or is_short_of_memory(error):
            raise
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(". ")
        raise RecipeError(
            f"model: {shown(model)} cannot be loaded from the Hugging Face Hub: {why}. Check the name and the network of the "
            "workers, or copy the model into a folder and name this folder"
        ) from error


def check_folder(model: str) -> dict[str, Any] | None:
    """Return the contents of config.json of a model folder, or None for a name on the Hub.

    Raises RecipeError, whose message begins with "model", if `model` is neither, or if the folder has no configuration or no
    weights.
    """
    folder = folder_or_name(model)
    if folder is None:
        return None
    try:
        file = folder / "config.json"
        if file.stat().st_size > MOST_CONFIG:
            raise ValueError("config.json is too large")
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"model: {folder} is not a model folder of transformers: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise RecipeError(f"model: {folder} is not a model folder of transformers: config.json has no model_type")
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHTS):
        raise RecipeError(f"model: {folder} has no weights. Copy its files, such as model.safetensors, into the folder")
    return config
