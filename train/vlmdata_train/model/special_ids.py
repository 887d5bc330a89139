"""The ids of special tokens in a language model's configuration: those of the tokenizer, within the vocabulary.

A configuration class has the ids of the model that was published with it, such as 32000 for Phi-3's padding. In a model from
scratch they are other tokens or none at all.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedTokenizerBase


def with_special_ids(values: dict[str, Any], tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> dict[str, Any]:
    """Return the fields of a configuration with every id that they leave to the class set to the tokenizer's, or to none.

    ValueError: they state an id that is not in the vocabulary, which has `vocabulary` ids.
    """
    for name, value in values.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if _is_id(name) and isinstance(number, int) and not 0 <= number < vocabulary:
                raise ValueError(
                    f"config: {name} is {number}, and the vocabulary has the ids 0 to {vocabulary - 1}: leave it out, then the"
                    " tokenizer's is taken"
                )
    return {**_ids(values["model_type"], tokenizer, vocabulary), **values}


def _ids(kind: str, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> dict[str, int | None]:
    """Return the ids for every field of this kind of model that holds one."""
    ids: dict[str, int | None] = {}
    for name, may_be_none in id_fields(kind).items():
        number = getattr(tokenizer, name, None)
        if name == "pad_token_id" and number in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            number = None  # an embedding of padding begins at zero, and this one is of a token that has a meaning
        ids[name] = number if number is not None and number < vocabulary else None if may_be_none else 0
    return ids


def id_fields(kind: str) -> dict[str, bool]:
    """Return which fields of a kind of configuration hold the id of a token, and of each whether it may be none."""
    fields = dataclasses.fields(CONFIG_MAPPING[kind]) if kind in CONFIG_MAPPING else ()
    return {field.name: "None" in str(field.type) for field in fields if _is_id(field.name)}


def _is_id(name: str) -> bool:
    return name.endswith("_token_id")


def drop_foreign_ids(config: PreTrainedConfig) -> None:
    """Set to none what a published configuration has of ids beyond its own vocabulary: torch makes no such padding."""
    text = config.get_text_config()
    for name in (name for name, may_be_none in id_fields(text.model_type).items() if may_be_none):
        number = getattr(text, name)
        if isinstance(number, int) and not 0 <= number < text.vocab_size:
            setattr(text, name, None)
