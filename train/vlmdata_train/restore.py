"""From a checkpoint's folder back to a model that can be used."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from vlmdata.step import RecipeError
from vlmdata_train import checkpoint, recipe
from vlmdata_train.checkpoint_folder import check_checkpoint
from vlmdata_train.model import VisionLanguageModel, build_model
from vlmdata_train.model_recipe import with_tokenizer
from vlmdata_train.optim import apply_parts


def restore(folder: Path, device: str) -> tuple[VisionLanguageModel, recipe.Recipe]:
    """Build a checkpoint's model with its weights and tokenizer, ready to answer, and return it with its recipe."""
    check_checkpoint(folder)
    choice = recipe.parse(json.loads((folder / "recipe.json").read_text()), str(folder / "recipe.json"))
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device cuda: torch sees no CUDA device")
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model = build_model(with_tokenizer(choice.model, str(folder / "tokenizer")))
    if choice.speed.precision == "bf16":
        model.to(torch.bfloat16)
    apply_parts(model.parts(), choice.parts)  # LoRA's weights must have their places
    checkpoint.load_model(folder, model)
    return model.requires_grad_(False).eval().to(kind), choice
