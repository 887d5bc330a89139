"""What a run begins with: a checkpoint of ours, or a published model in LLaVA's form by its folder or hub name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlmdata.step import RecipeError
from vlmdata_train import checkpoint
from vlmdata_train.checkpoint_folder import is_checkpoint
from vlmdata_train.lora import merge_lora
from vlmdata_train.model import VisionLanguageModel
from vlmdata_train.optim import apply_parts
from vlmdata_train.recipe import Lora, Part


def fill(model: VisionLanguageModel, start: str) -> None:
    """Put the weights to begin with into a model of the same parts. RecipeError names the first that does not fit."""
    if is_checkpoint(start):
        facts = json.loads((Path(start) / "recipe.json").read_text())
        apply_parts(model.parts(), {name: _part(part) for name, part in facts["parts"].items()})  # LoRA needs its places
        checkpoint.load_model(Path(start), model)
        merge_lora(model)
        return
    from vlmdata_train.llava_io import fill_from_llava

    try:
        fill_from_llava(model, start)
    except ValueError as error:
        raise RecipeError(f"start: {error}") from None


def _part(values: dict[str, Any]) -> Part:
    return Part(lora=Lora(**values["lora"]) if values["lora"] else None)
