"""Writes a checkpoint as a folder that transformers, vLLM and other programs can read."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from vlmdata.step import RecipeError
from vlmdata_train.convert.adapter import save_adapter
from vlmdata_train.convert.checkpoint import read_tensors
from vlmdata_train.convert.checkpoint_folder import is_checkpoint
from vlmdata_train.convert.family import family_of
from vlmdata_train.convert.published import Published
from vlmdata_train.convert.restore import restore
from vlmdata_train.convert.save_published import save_published
from vlmdata_train.convert.save_weights import save_weights
from vlmdata_train.model.lora import merge_lora
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.recipe import Recipe

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export(checkpoint: Path, folder: Path, *, adapter: bool = False, dtype: str | None = None) -> None:
    """Write a checkpoint in the format of its family in transformers, with LoRA merged.

    If no format of transformers can hold the model, write its weights with a model card that says why, and print the reason to
    stderr. `dtype`, a name in DTYPES, is the data type of the weights; None means that of the checkpoint. With `adapter`, write
    only LoRA's updates and the other trained weights, as an adapter of peft for the published model from which the run started.
    Raises RecipeError if `folder` is not empty, or if an adapter cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RecipeError(f"{folder} is not empty. Choose another folder")
    model, recipe = restore(checkpoint, "cpu")
    if adapter:
        try:
            _save_adapter(model, recipe, checkpoint, folder)
        except ValueError as error:
            raise RecipeError(f"{checkpoint}: {error}") from None
        return
    kind = next(model.parameters()).dtype if dtype is None else DTYPES[dtype]
    if any("lora_" in name for name in model.state_dict()):
        merge_lora(model.float())  # in bf16 the sum would round the updates away
    try:
        save_published(model.to(kind), folder)
    except ValueError as error:
        reason = f"{error}." if not str(error).endswith(".") else str(error)
        print(f"vlmdata train: {reason} {folder} holds the weights and a model card, for vlmdata only", file=sys.stderr)
        save_weights(model, recipe.describe(), folder, reason)


def _save_adapter(model: VisionLanguageModel, recipe: Recipe, checkpoint: Path, folder: Path) -> None:
    """Write an adapter. Raises ValueError if the run did not start from a published model."""
    if recipe.start is None or is_checkpoint(recipe.start):
        raise ValueError("--adapter: the run must have started from a published model, to which an adapter can be added")
    start = Published(recipe.start)
    if start.find("config.json") is not None and not family_of(start).is_written:
        raise ValueError(
            f"--adapter: {recipe.start} has the format of its authors' code, so transformers and peft cannot add an adapter to"
            " it. Export without --adapter"
        )
    trained = {name for name, _ in read_tensors(checkpoint, "model")}  # without frozen weights
    save_adapter(model, folder, base=recipe.start, trained=trained)
