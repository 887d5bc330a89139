"""What a run begins with: a checkpoint of ours, or a published model in LLaVA's form by its folder or hub name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from vlmdata.step import RecipeError
from vlmdata_train import checkpoint
from vlmdata_train.lora import merge_lora
from vlmdata_train.model import ModelRecipe, VisionLanguageModel
from vlmdata_train.optim import apply_parts
from vlmdata_train.recipe import Lora, Part


def with_tokenizer(model: ModelRecipe, tokenizer: str) -> ModelRecipe:
    """Return the parts with another tokenizer in the language model's entry."""
    return _with(model, tokenizer=tokenizer)


def with_template(model: ModelRecipe, chat_template: str | None) -> ModelRecipe:
    """Return the parts with another chat template in the language model's entry; None leaves them as they are."""
    return model if chat_template is None else _with(model, chat_template=chat_template)


def _with(model: ModelRecipe, **choices: str) -> ModelRecipe:
    entry = model.language if not isinstance(model.language, str) else {model.language: {}}
    ((name, parameters),) = entry.items()
    return dataclasses.replace(model, language={name: {**(parameters or {}), **choices}})


def is_checkpoint(start: str) -> bool:
    """Say whether a start is a checkpoint of the trainer's own."""
    return (Path(start) / "recipe.json").exists()


def model_of(start: str) -> ModelRecipe:
    """Return the parts of the model to begin with, its tokenizer among them. RecipeError: there is none, or of another form."""
    if is_checkpoint(start):
        facts = json.loads((Path(start) / "recipe.json").read_text())
        return with_tokenizer(ModelRecipe(**facts["model"]), str(Path(start) / "tokenizer"))
    from vlmdata_train.llava_io import llava_recipe  # transformers' models take seconds to import

    newest = checkpoint.latest(Path(start)) or checkpoint.latest(Path(start) / "checkpoints")
    if newest:
        raise RecipeError(f"start: {start} is a run. Did you mean '{newest}'?")
    try:
        return llava_recipe(start)
    except OSError:
        raise RecipeError(f"start: {start} is neither a checkpoint nor a model that transformers finds") from None
    except ValueError as error:
        raise RecipeError(f"start: {' '.join(str(error).split())}") from None


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
