"""Kosmos-2's decoder, with the tokens of grounded text.

Source: Peng et al. 2023, Kosmos-2: Grounding Multimodal Large Language Models to the World.

B rows, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.kosmos2.modeling_kosmos2 import (
    Kosmos2TextForCausalLM,
    Kosmos2TextSinusoidalPositionalEmbedding,
    Kosmos2TextTransformer,
)

from vlmdata_train.languages.hf_causal import HfCausal

TYPE = "kosmos_2_text_model"  # `model_type` of the configuration
TAGS = (
    "</doc>", "<image>", "</image>", "</chunk>", "</line>", "<phrase>", "</phrase>", "<object>", "</object>",
    "</delimiter_of_multi_objects/>", "<grounding>",
)  # fmt: skip
PATCHES = tuple(f"<patch_index_{number:04d}>" for number in range(32 * 32))  # places in an image, row by row


class OffsetPositions(Kosmos2TextSinusoidalPositionalEmbedding):
    """Sinusoidal embeddings of positions that count from 0 in each sample."""

    def forward(
        self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, cache_length: int = 0,
        position_ids: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the embeddings (B, T, D) of positions (B, T), in the data type of `inputs_embeds` (B, T, D).

        As in fairseq, the first token of a sample has the row after that of the padding token.
        """
        assert inputs_embeds is not None and position_ids is not None and self.padding_idx is not None
        rows = position_ids + self.padding_idx + 1
        found = super().forward(inputs_embeds=inputs_embeds, position_ids=rows, cache_length=cache_length)
        return found.to(inputs_embeds.dtype)


class PackedTransformer(Kosmos2TextTransformer):
    """Kosmos-2's layers for packed samples."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embed_positions = OffsetPositions(config.max_position_embeddings, config.embed_dim, config.pad_token_id)
        blocks: Any = self.layers
        for block in blocks:
            block.self_attn.dropout = 0.0  # packed attention has no dropout

    def _prepare_decoder_attention_mask(self, *_: Any) -> None:
        """Make no mask (B, 1, T, T), because `packing` says which tokens see which."""


class PackedDecoder(Kosmos2TextForCausalLM):
    """Kosmos-2's decoder and output layer. Image features replace embeddings before these are scaled by the root of D."""

    base_model_prefix = "model"
    # the other parts of a Kosmos-2
    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^image_to_text_projection\."]  # noqa: RUF012 (as in transformers)

    def __init__(self, config: Any) -> None:
        super(Kosmos2TextForCausalLM, self).__init__(config)  # without the layers of the parent class, which pack no samples
        self.model = PackedTransformer(config)
        self.lm_head = nn.Linear(config.embed_dim, config.vocab_size, bias=False)
        self.post_init()


@dataclass(frozen=True)
class Kosmos2(HfCausal):
    """Kosmos-2's decoder from `name` (the weights of a whole Kosmos-2) or `config` (random weights). Set exactly one.

    Its vocabulary has the tokens of grounded text, such as `<phrase>` and `<patch_index_0044>`, which texts may contain. The
    configuration's `dropout` acts in training, and its `attention_dropout` has no effect. A `config` needs no `model_type`.
    """

    def __post_init__(self) -> None:
        if self.config is not None:
            object.__setattr__(self, "config", {"model_type": TYPE, **self.config})
            if self.config["model_type"] != TYPE:
                raise ValueError(f"model_type must be {TYPE}, not {self.config['model_type']}")
        super().__post_init__()

    def load_tokenizer(self, *, image: str | None = None, literals: Sequence[str] = ()) -> PreTrainedTokenizerBase:
        """Load the tokenizer, with the tokens of grounded text as ordinary tokens, as Kosmos-2's processor adds them."""
        tokenizer = super().load_tokenizer(image=image, literals=literals)
        tokenizer.add_tokens([AddedToken(name, lstrip=True, normalized=False) for name in (*TAGS, *PATCHES)])
        return tokenizer

    def load_config(self, tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedConfig:
        """Return the configuration of the decoder without loading weights. Raises ValueError if `name` is no Kosmos-2."""
        config = super().load_config(tokenizer).get_text_config()
        if config.model_type != TYPE:
            raise ValueError(f"{self.name} has a {config.model_type}, not Kosmos-2's decoder. Use hf_causal")
        return config

    def build(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """Return the model; see `HfCausal.build`. Raises ValueError for a padding token that the positions cannot use.

        transformers gives padding tokens no position. So if texts had them, an exported model would have other positions.
        It also fails if the table of positions ends before the padding token.
        """
        config = self.load_config(tokenizer)
        number = config.pad_token_id
        if number is None or number != tokenizer.pad_token_id or number in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            raise ValueError(
                f"Kosmos-2's positions need a padding token that no text contains. But pad_token_id is {number}, and the"
                f" tokenizer's padding token is {tokenizer.pad_token}. Use a tokenizer with a padding token of its own"
            )
        if number >= config.max_position_embeddings + 2:  # the rows of the table
            raise ValueError(
                f"Kosmos-2's positions begin after the id of the padding token, {number}, so max_position_embeddings must be"
                f" {number - 1} or more, not {config.max_position_embeddings}"
            )
        return super().build(tokenizer)

    def load_weights(self, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
        """Return the decoder of the published Kosmos-2 `name`."""
        assert self.name is not None
        return PackedDecoder.from_pretrained(self.name, config=config, dtype=dtype, key_mapping={r"^text_model\.": ""})

    def draw_weights(self, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
        """Return a decoder with random weights."""
        model: Any = PackedDecoder(config)
        return model.to(dtype)
