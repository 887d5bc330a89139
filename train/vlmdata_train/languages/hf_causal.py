"""Any causal language model of Hugging Face, with its published weights or from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from vlmdata_train.attention import use_packed_attention
from vlmdata_train.configs import config_of
from vlmdata_train.tokens import BYTES, load_tokenizer


@dataclass(frozen=True)
class HfCausal:
    """Exactly one of `name` (published weights) and `config` (random weights) is given."""

    name: str | None = None  # a hub name or a folder
    config: dict[str, Any] | None = None  # model_type, hidden_size, ... as the model's own configuration names them
    tokenizer: str | None = None  # a hub name, a folder or `bytes`; without it the model's own
    chat_template: str | None = None  # in place of the tokenizer's own, as Jinja; a recipe's `chat_template` is put here
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights

    def __post_init__(self) -> None:
        if (self.name is None) == (self.config is None):
            raise ValueError("give either name (published weights) or config (from scratch)")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("config needs a model_type, such as llama")

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer; a model from scratch without one speaks in bytes."""
        return load_tokenizer(self.tokenizer or self.name or BYTES, self.chat_template)

    def load_config(self) -> PreTrainedConfig:
        """Return the model's configuration, without any weights."""
        if self.name is not None:
            return AutoConfig.from_pretrained(self.name)
        assert self.config is not None
        return config_of(self.config)

    def width(self) -> int:
        """Return the width of an embedding."""
        return int(self.load_config().get_text_config().hidden_size)

    def build(self, vocabulary: int) -> PreTrainedModel:
        """Make the model and give its embeddings a row for each of `vocabulary` tokens where they have fewer.

        Added rows are drawn around the mean of the old ones, so that a new token does not dominate the softmax.
        """
        dtype = getattr(torch, self.dtype)
        if self.name is not None:
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(self.name, dtype=dtype)
            if model.get_input_embeddings().get_parameter("weight").shape[0] < vocabulary:
                model.resize_token_embeddings(vocabulary, pad_to_multiple_of=64)
        else:
            config = self.load_config()
            if "vocab_size" not in (self.config or {}):
                config.vocab_size = -(-vocabulary // 64) * 64  # whole tiles for the matrix units
            if config.vocab_size < vocabulary:
                raise ValueError(f"vocab_size {config.vocab_size} is smaller than the tokenizer's {vocabulary}")
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        use_packed_attention(model)
        return model
