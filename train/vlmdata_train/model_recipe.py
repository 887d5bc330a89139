"""What a recipe says of a model: the parts it is put together from. Read without torch, so that mistakes come at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelRecipe:
    """Each part: a name, or a mapping of one name to its parameters. A name is a file in the part's folder."""

    encoder: Any
    language: Any
    preprocessing: Any = "resize"
    abstractor: Any = "mlp"
    fusion: Any = "tokens"
    positions: Any = "rope"


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
