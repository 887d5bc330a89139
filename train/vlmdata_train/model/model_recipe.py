"""A recipe's model: its parts, and how each part is trained.

This file imports no torch, so that mistakes are reported at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QUESTION_TOKENIZER = "question_tokenizer"  # a checkpoint's folder with the tokenizer of an abstractor that reads the question


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
    grounding: Any = None  # the form in which boxes are written in texts (`box_form.py`); None: as fractions of the picture


def with_tokenizer(model: ModelRecipe, tokenizer: str) -> ModelRecipe:
    """Return the parts with this tokenizer in the language model's entry."""
    return _with(model, tokenizer=tokenizer)


def with_stored_tokenizers(model: ModelRecipe, checkpoint: Path) -> ModelRecipe:
    """Return the parts with the tokenizers of a checkpoint: the language model's, and the abstractor's if it has its own."""
    model = with_tokenizer(model, str(checkpoint / "tokenizer"))
    entry = model.abstractor
    if isinstance(entry, str):
        return model
    ((name, parameters),) = entry.items()
    stored = checkpoint / QUESTION_TOKENIZER
    if (parameters or {}).get("tokenizer") is None or not stored.is_dir():
        return model
    return dataclasses.replace(model, abstractor={name: {**parameters, "tokenizer": str(stored)}})


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
    layers: str | list[str] | None = None  # patterns of the names of the linear layers to update; None: all

    def __post_init__(self) -> None:
        check_range(self, "rank alpha", least=1)
        check_range(self, "dropout", least=0, below=1)
        if self.layers is not None:
            _check_patterns(self.layers, "layers")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How some weights of a part are trained, in place of the part's own choices."""

    weights: str | list[str]  # patterns of names (see weight_rules.py), or the words `norms` and `biases`
    frozen: bool | None = None  # None: as the part; false: train these weights fully, also if the part is frozen or has LoRA
    lr: float | None = None  # None: the part's
    weight_decay: float | None = None  # None: the part's

    def __post_init__(self) -> None:
        check_range(self, "lr weight_decay", least=0)
        _check_patterns(self.weights, "weights")
        is_tuned = self.lr is not None or self.weight_decay is not None
        if self.frozen is None and not is_tuned:
            raise ValueError("a rule must set `frozen`, `lr` or `weight_decay`")
        if self.frozen and is_tuned:
            raise ValueError("frozen weights cannot have `lr` or `weight_decay`")

    @property
    def label(self) -> str:
        """The patterns as one text, for logs."""
        return ", ".join(patterns_of(self.weights))


@dataclass(frozen=True, kw_only=True)
class Part:
    """How one part of the model is trained: frozen, at a learning rate, or with LoRA. Rules change this for some weights."""

    frozen: bool = False
    lr: float | None = None  # None: the recipe's `lr`
    weight_decay: float | None = None  # None: the optimizer's `weight_decay`
    lora: Lora | None = None
    rules: list[Rule] = field(default_factory=list)  # a later rule overrides an earlier one

    def __post_init__(self) -> None:
        check_range(self, "lr weight_decay", least=0)
        if not self.is_trained and (self.lora or self.rules or self.lr is not None):
            raise ValueError("a frozen part cannot have `lr`, `lora` or `rules`, unless a rule sets `frozen: false`")
        if self.frozen and self.lora:
            raise ValueError("a frozen part cannot have `lora`. Remove `frozen`, because LoRA freezes the part's own weights")

    @property
    def is_trained(self) -> bool:
        """Whether some weights of the part are trained."""
        return not self.frozen or any(rule.frozen is False for rule in self.rules)


def patterns_of(patterns: str | list[str]) -> list[str]:
    """Return one or several patterns as a list."""
    return [patterns] if isinstance(patterns, str) else patterns


def _check_patterns(patterns: str | list[str], name: str) -> None:
    """Raise ValueError if there is no pattern, or if one is empty."""
    if not patterns or not all(patterns_of(patterns)):
        raise ValueError(f"{name} must be a pattern of names, or a list of patterns, not {patterns!r}")


def check_range(part: Any, names: str, *, least: float, below: float = float("inf")) -> None:
    """Raise ValueError if a field is a number outside [`least`, `below`); a field may be None.

    `names` holds the names of the fields, separated by spaces. Without `below`, a whole number must fit into 64 bits, because
    torch and itertools refuse a larger one.
    """
    for name in names.split():
        value = getattr(part, name)
        most = min(below, 2**63) if isinstance(value, int) and below == float("inf") else below
        if value is not None and not least <= value < most:
            bound = f" and less than {most}" if most < float("inf") and (below < float("inf") or value >= most) else ""
            raise ValueError(f"{name} must be {least} or more{bound}, not {value}")
