"""Checks checkpoint folders and the `start` of a run. It does not import torch, so it reports mistakes without delay."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from vlmdata.step import RecipeError
from vlmdata_train.model.model_recipe import ModelRecipe, with_stored_tokenizers


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint in a folder, or None if there is none."""
    return max(folder.glob("step_*"), key=lambda p: p.name, default=None)


def is_checkpoint(start: str) -> bool:
    """Return whether `start` is the folder of a checkpoint of this trainer."""
    return (Path(start) / "recipe.json").exists()


def check_checkpoint(folder: Path) -> None:
    """Raise RecipeError if a folder is not a checkpoint. For the folder of a run, the error names the newest checkpoint.

    For an exported model, the error says what to use instead.
    """
    if is_checkpoint(str(folder)):
        return
    newest = latest(folder) or latest(folder / "checkpoints")
    if newest:
        raise RecipeError(f"{folder} is not a checkpoint, because it has no recipe.json. Did you mean '{newest}'?")
    if (folder / "config.json").exists():
        raise RecipeError(
            f"{folder} is a model in transformers' format, not a checkpoint. Use the checkpoint from which it was exported, or"
            " load it with transformers"
        )
    reason = "it has no recipe.json" if folder.exists() else "it does not exist"
    raise RecipeError(f"{folder} is not a checkpoint, because {reason}")


def check_start(start: str) -> None:
    """Raise RecipeError if `start` cannot be a checkpoint, the folder of a model or the hub name of a model."""
    if is_checkpoint(start):
        return
    newest = latest(Path(start)) or latest(Path(start) / "checkpoints")
    if newest:
        raise RecipeError(f"start: {start} is the folder of a run, not a checkpoint. Did you mean '{newest}'?")
    is_path = start.startswith(("/", ".", "~")) or start.count("/") > 1  # a hub name is OWNER/NAME
    if (Path(start).is_dir() or is_path) and not (Path(start) / "config.json").exists():
        raise RecipeError(f"start: {start} is not a checkpoint, and transformers finds no model with this name or path")


def model_of(start: str) -> ModelRecipe:
    """Return the recipe of the model at `start`. Its entries name the tokenizers that are stored at `start`.

    Raise RecipeError if there is no model, or if no family in `convert/families` has the format of a published model.
    """
    check_start(start)
    if is_checkpoint(start):
        facts = json.loads((Path(start) / "recipe.json").read_text())
        return with_stored_tokenizers(ModelRecipe(**facts["model"]), Path(start))
    from vlmdata_train.convert.family import family_of  # transformers' models take seconds to import
    from vlmdata_train.convert.published import Published

    published = Published(start)
    try:
        family = family_of(published)
        return dataclasses.replace(family.recipe(published), grounding=family.grounding_of(published))
    except RecipeError:
        raise
    except OSError as error:
        raise RecipeError(f"start: {start} lacks a file of a published model: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise RecipeError(f"start: {' '.join(str(error).split())}") from None
