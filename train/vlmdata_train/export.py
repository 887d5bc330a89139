"""Writes a checkpoint as a folder that transformers, vLLM and other programs can read."""

from __future__ import annotations

from pathlib import Path

from vlmdata.step import RecipeError
from vlmdata_train.convert.restore import restore
from vlmdata_train.convert.save_published import save_published
from vlmdata_train.model.lora import merge_lora


def export(checkpoint: Path, folder: Path) -> None:
    """Write a checkpoint in the format of its family in transformers, with LoRA merged.

    Raises RecipeError if `folder` is not empty, or if no family's format can hold the model.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RecipeError(f"{folder} is not empty. Choose another folder")
    model, _ = restore(checkpoint, "cpu")
    dtype = next(model.parameters()).dtype
    merge_lora(model.float())  # in bf16 the sum would round the updates away
    try:
        save_published(model.to(dtype), folder)
    except ValueError as error:
        raise RecipeError(f"{checkpoint}: {error}") from None
