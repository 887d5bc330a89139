"""Loads weights from disk: a checkpoint as a model that is ready for use, or the start weights of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from vlmdata.step import RecipeError
from vlmdata_train.convert import checkpoint
from vlmdata_train.convert.checkpoint_folder import check_checkpoint, is_checkpoint
from vlmdata_train.model.freezing import apply_parts
from vlmdata_train.model.lora import remove_lora
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import with_stored_tokenizers
from vlmdata_train.model.weight_places import weight_places
from vlmdata_train.recipe import Recipe, build_parts, build_recipe


def restore(folder: Path, device: str) -> tuple[VisionLanguageModel, Recipe]:
    """Return the model and the recipe of a checkpoint.

    The model has its weights and tokenizer, and is in evaluation mode. `device` is `cpu`, `cuda` or `auto`.
    """
    check_checkpoint(folder)
    choice = build_recipe(json.loads((folder / "recipe.json").read_text()), str(folder / "recipe.json"))
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device cuda: torch sees no CUDA device")
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model = build_model(with_stored_tokenizers(choice.model, folder))
    if choice.speed.precision == "bf16":
        model.to(torch.bfloat16)
    apply_parts(model.parts(), choice.parts)  # creates the modules for LoRA's weights
    checkpoint.load_model(folder, model)
    return model.requires_grad_(False).eval().to(kind), choice


def start_weights(model: VisionLanguageModel, start: str) -> Callable[[], None]:
    """Return a function that reads the weights of `start`, a checkpoint or a published model, into `model`.

    The model must not have LoRA or be sharded yet, but may be when the function is called. The function raises RecipeError for
    weights that do not fit. LoRA updates of the checkpoint are added to the weights.
    """
    if is_checkpoint(start):
        file = Path(start) / "recipe.json"
        try:
            apply_parts(model.parts(), build_parts(json.loads(file.read_text())["parts"], f"{file}, parts"))  # LoRA's modules
        except ValueError as error:
            raise RecipeError(f"start: the parts of {start} do not fit the model: {error}") from None
        places = weight_places(model)
        return partial(checkpoint.load_weights, Path(start), places, remove_lora(model))
    from vlmdata_train.convert.fill import fill_from_published  # transformers' models take seconds to import

    places = weight_places(model)

    def read() -> None:
        try:
            fill_from_published(model, start, places)
        except RecipeError:  # about a file of the model, with the word `start` already
            raise
        except ValueError as error:
            raise RecipeError(f"start: {error}") from None

    return read
