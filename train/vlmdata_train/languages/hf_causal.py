"""Causal language models of Hugging Face, with published weights or from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from vlmdata_train.model.attention import use_packed_attention
from vlmdata_train.model.hf_configs import config_of, published_config
from vlmdata_train.model.placeholders import are_on, in_full
from vlmdata_train.model.quiet import quiet
from vlmdata_train.model.special_ids import drop_foreign_ids, with_special_ids
from vlmdata_train.model.tokens import BYTES, load_tokenizer


@dataclass(frozen=True)
class HfCausal:
    """A language model from `name` (published weights) or `config` (random weights). Exactly one must be set."""

    name: str | None = None  # a hub name or a folder
    config: dict[str, Any] | None = None  # model_type, hidden_size and other fields of the model's configuration
    tokenizer: str | None = None  # a hub name, a folder or `bytes`; None: the model's tokenizer
    chat_template: str | None = None  # Jinja that replaces the tokenizer's template; from the recipe's `chat_template`
    dtype: Literal["float32", "bfloat16"] = "float32"  # data type of the weights

    def __post_init__(self) -> None:
        if (self.name is None) == (self.config is None):
            raise ValueError("set exactly one of name (published weights) and config (random weights)")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs a model_type, such as llama")

    def load_tokenizer(self, *, image: str | None = None, literals: Sequence[str] = ()) -> PreTrainedTokenizerBase:
        """Load the tokenizer; see `tokens.load_tokenizer`. A model from scratch has a tokenizer of bytes by default."""
        return load_tokenizer(self.tokenizer or self.name or BYTES, self.chat_template, image=image, literals=literals)

    def load_config(self, tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedConfig:
        """Return the model's configuration without loading weights.

        A model from scratch has the vocabulary size and the special ids of its tokenizer, if `config` does not set them.
        `tokenizer` is the model's tokenizer if it is already loaded.
        """
        if self.name is not None:
            config = published_config(self.name)
            drop_foreign_ids(config)
            return config
        assert self.config is not None
        tokenizer = tokenizer or self.load_tokenizer()
        size = -(-len(tokenizer) // 64) * 64  # rounded up to whole tiles of the matrix units
        values = {"vocab_size": size, **self.config}
        if isinstance(values["vocab_size"], int):  # the configuration's class refuses other types
            size = values["vocab_size"]
        return config_of(with_special_ids(values, tokenizer, size))

    def width(self) -> int:
        """Return the width of the embeddings."""
        return int(self.load_config().get_text_config().hidden_size)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """Return the model. Rows are added to its embeddings if the tokenizer has more tokens than there are rows.

        Added rows are drawn around the mean of the old rows, so that a new token does not dominate the softmax. Raises
        ValueError if a model from scratch has a `vocab_size` below the number of tokens.
        """
        dtype, config, vocabulary = getattr(torch, self.dtype), self.load_config(tokenizer), len(tokenizer)
        if self.name is not None:
            model: PreTrainedModel = self._published(config, dtype, vocabulary)
        else:
            if config.vocab_size < vocabulary:
                raise ValueError(f"vocab_size is {config.vocab_size}, but the tokenizer needs at least {vocabulary}")
            model = self.draw_weights(config, dtype)
        # Padding has no loss and no attention, so its embedding would not be trained anyway. But the padding token may have
        # another use, often the end of a turn, and must be trained there.
        embeddings: Any = model.get_input_embeddings()
        embeddings.padding_idx = None
        use_packed_attention(model)
        return model

    def load_weights(self, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
        """Return the model of this configuration with the published weights of `name`."""
        assert self.name is not None
        _check_causal(config)
        return AutoModelForCausalLM.from_pretrained(self.name, config=config, dtype=dtype)

    def draw_weights(self, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
        """Return a model of this configuration with random weights."""
        _check_causal(config)
        return AutoModelForCausalLM.from_config(config, dtype=dtype)

    def _published(self, config: PreTrainedConfig, dtype: torch.dtype, vocabulary: int) -> PreTrainedModel:
        """Return the published model with at least `vocabulary` rows. For placeholders, its weights are only read if needed.

        They are needed if `config` ties embeddings and output layer: transformers compares both in the files before it ties
        them.
        """

        def read() -> PreTrainedModel:
            return _with_rows(self.load_weights(config, dtype), vocabulary)

        if not are_on() or getattr(config.get_text_config(), "tie_word_embeddings", True):
            return in_full(read)
        return _with_rows(self.draw_weights(config, dtype), vocabulary)


def _check_causal(config: PreTrainedConfig) -> None:
    """Raise ValueError for another kind of model. transformers would list the classes of all causal language models."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"language: a {config.model_type} is no causal language model of transformers, as llama and qwen2 are")


def _with_rows(model: PreTrainedModel, vocabulary: int) -> PreTrainedModel:
    """Add rows to the embeddings if there are fewer than `vocabulary`."""
    weight = model.get_input_embeddings().get_parameter("weight")
    if len(weight) < vocabulary:
        with quiet():  # transformers warns about the way rows are drawn, which is intended
            model.resize_token_embeddings(vocabulary, pad_to_multiple_of=64, mean_resizing=not weight.is_meta)
    return model
