"""Special token ids in a language model's configuration: the tokenizer's, within the vocabulary.

A configuration class has the ids of its published model by default, such as 32000 for Phi-3's padding. In a model from scratch
these are other tokens or outside the vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedTokenizerBase


def with_special_ids(values: dict[str, Any], tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> dict[str, Any]:
    """Return a configuration's fields, with every id that they do not state set to the tokenizer's, or to None.

    Raises ValueError if they state an id outside the vocabulary of `vocabulary` ids.
    """
    for name, value in values.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if _is_id(name) and isinstance(number, int) and not 0 <= number < vocabulary:
                raise ValueError(
                    f"config: {name} is {number}, but the vocabulary has the ids 0 to {vocabulary - 1}: omit it to use the"
                    " tokenizer's id"
                )
    return {**_ids(values["model_type"], tokenizer, vocabulary), **values}


def _ids(kind: str, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> dict[str, int | None]:
    """Return the ids for every field of this kind of model that holds a token's id."""
    ids: dict[str, int | None] = {}
    for name, may_be_none in id_fields(kind).items():
        number = getattr(tokenizer, name, None)
        if name == "pad_token_id" and number in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            number = None  # torch starts the embedding of padding at zero, which is wrong for a token with another meaning
        ids[name] = number if number is not None and number < vocabulary else None if may_be_none else 0
    return ids


def id_fields(kind: str) -> dict[str, bool]:
    """Return the fields of a kind of configuration that hold a token's id, and whether each may be None."""
    fields = dataclasses.fields(CONFIG_MAPPING[kind]) if kind in CONFIG_MAPPING else ()
    return {field.name: "None" in str(field.type) for field in fields if _is_id(field.name)}


def _is_id(name: str) -> bool:
    return name.endswith("_token_id")


def drop_foreign_ids(config: PreTrainedConfig) -> None:
    """Set ids outside a published configuration's own vocabulary to None: torch refuses such a padding id."""
    text = config.get_text_config()
    for name in (name for name, may_be_none in id_fields(text.model_type).items() if may_be_none):
        number = getattr(text, name)
        if isinstance(number, int) and not 0 <= number < text.vocab_size:
            setattr(text, name, None)
