"""Set the special token ids in a language model's configuration to those of the tokenizer.

By default, a configuration class has the ids of its published model, such as 32000 for Phi-3's padding. In a model from scratch
these ids are different tokens, or are outside the vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedTokenizerBase


def with_special_ids(values: dict[str, Any], tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> dict[str, Any]:
    """Return the fields of a configuration, with the tokenizer's id added for each special id that `values` lacks.

    If the tokenizer has no such id, the field is None, or 0 if it may not be None. Raises ValueError if `values` has an id
    outside the vocabulary of `vocabulary` ids.
    """
    for name, value in values.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if _is_id(name) and isinstance(number, int) and not 0 <= number < vocabulary:
                raise ValueError(
                    f"config: {name} is {number}, but the vocabulary has the ids 0 to {vocabulary - 1}. Omit the field to use"
                    " the tokenizer's id."
                )
    return {**_ids(values["model_type"], tokenizer, vocabulary), **values}


def _ids(kind: str, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> dict[str, int | None]:
    """Map each field for the id of a special token, in the configuration of this kind of model, to the id.

    If the tokenizer or the vocabulary has no such token, the value is None, or 0 if the field must not be None.
    """
    ids: dict[str, int | None] = {}
    for name, may_be_none in id_fields(kind).items():
        number = getattr(tokenizer, name, None)
        if name == "pad_token_id" and number in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            number = None  # torch sets the padding embedding to zero, which is wrong for a token with another meaning
        ids[name] = number if number is not None and number < vocabulary else None if may_be_none else 0
    return ids


def id_fields(kind: str) -> dict[str, bool]:
    """Return the fields that hold a special token's id in this kind of configuration, and whether each may be None."""
    fields = dataclasses.fields(CONFIG_MAPPING[kind]) if kind in CONFIG_MAPPING else ()
    return {field.name: "None" in str(field.type) for field in fields if _is_id(field.name)}


def _is_id(name: str) -> bool:
    return name.endswith("_token_id")


def drop_foreign_ids(config: PreTrainedConfig) -> None:
    """Set each special id in a published configuration to None if it is outside the configuration's own vocabulary.

    torch refuses a padding id outside the vocabulary.
    """
    text = config.get_text_config()
    for name in (name for name, may_be_none in id_fields(text.model_type).items() if may_be_none):
        number = getattr(text, name)
        if isinstance(number, int) and not 0 <= number < text.vocab_size:
            setattr(text, name, None)
