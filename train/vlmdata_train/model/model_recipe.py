"""A recipe's model: its parts, and how each part is trained.

This file imports no torch, so that mistakes are reported at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelRecipe:
    """The parts of a model.

    Each part is a name, or a mapping of one name to its parameters. A name is a file in the part's folder.
    """

    encoder: Any
    language: Any
    preprocessing: Any = "resize"
    abstractor: Any = "mlp"
    fusion: Any = "tokens"
    positions: Any = "rope"
    writing: Any = "plain"
    video: Any = None  # None: each frame of a video is an image


def with_tokenizer(model: ModelRecipe, tokenizer: str) -> ModelRecipe:
    """Return the parts with this tokenizer in the language model's entry."""
    return _with(model, tokenizer=tokenizer)


def with_template(model: ModelRecipe, chat_template: str | None) -> ModelRecipe:
    """Return the parts with this chat template in the language model's entry. A template of None changes nothing."""
    return model if chat_template is None else _with(model, chat_template=chat_template)


def _with(model: ModelRecipe, **choices: str) -> ModelRecipe:
    """Return the model's parts with `choices` as parameters of the language model."""
    entry = model.language if not isinstance(model.language, str) else {model.language: {}}
    ((name, parameters),) = entry.items()
    return dataclasses.replace(model, language={name: {**(parameters or {}), **choices}})


@dataclass(frozen=True, kw_only=True)
class Lora:
    """LoRA (Hu et al. 2021), by peft: train low-rank updates instead of the part's weights."""

    rank: int = 128  # default of LLaVA-1.5's script
    alpha: int = 256  # default of LLaVA-1.5's script; the update is scaled by alpha / rank
    dropout: float = 0.05  # default of LLaVA-1.5's script

    def __post_init__(self) -> None:
        check_range(self, "rank alpha", least=1)
        check_range(self, "dropout", least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class Part:
    """How one part of the model is trained: frozen, at a learning rate, or with LoRA."""

    frozen: bool = False
    lr: float | None = None  # None: the recipe's `lr`
    weight_decay: float | None = None  # None: the optimizer's `weight_decay`
    lora: Lora | None = None

    def __post_init__(self) -> None:
        check_range(self, "lr weight_decay", least=0)


def check_range(part: Any, names: str, *, least: float, below: float = float("inf")) -> None:
    """Raise ValueError if a field is a number outside [`least`, `below`); a field may be None.

    `names` holds the names of the fields, separated by spaces.
    """
    for name in names.split():
        value = getattr(part, name)
        if value is not None and not least <= value < below:
            bound = f" and less than {below}" if below < float("inf") else ""
            raise ValueError(f"{name} must be {least} or more{bound}, not {value}")
