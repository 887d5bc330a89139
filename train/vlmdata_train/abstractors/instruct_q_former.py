"""InstructBLIP's Q-Former: learned queries and the tokens of the question in a BERT with cross-attention to the patches.

The queries and the question attend to each other. Only the queries attend to the patches, and only the queries are returned.

Source: Dai et al. 2023, InstructBLIP. The transformer is Hugging Face's.

P tiles, N patches, Q queries, L tokens of a question, C and D widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel, PreTrainedTokenizerBase

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid
from vlmdata_train.model.model_recipe import check_range
from vlmdata_train.model.question_text import load_question_tokenizer, question_ids
from vlmdata_train.model.surroundings import Surroundings, TextFacts, padded
from vlmdata_train.model.unused_weights import to_buffers

POSITIONS = 512  # learned positions of BERT, and so of the published weights


class InstructQueries(nn.Module):
    """The network of `InstructQFormer`: patches (N, C) of each tile, and the question -> queries (Q, D) of each tile."""

    reads_surroundings = True
    returns_tiles = True

    def __init__(self, config: InstructBlipQFormerConfig, queries: int, out_width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, config.hidden_size) * config.initializer_range)
        self.transformer = InstructBlipQFormerModel(config)
        self.project = nn.Linear(config.hidden_size, out_width)
        last: Any = self.transformer.encoder.layer[-1]
        for unused in (last.intermediate, last.output):  # nothing reads the text after the last layer
            to_buffers(unused, [name for name, _ in unused.named_parameters()])

    def forward(self, tiles: Sequence[Tensor], surroundings: Surroundings) -> list[Tensor]:
        """Return the projected queries (Q, D) of each tile."""
        patches, is_patch = padded(tiles)
        ids, is_word = surroundings.question_of_tiles()
        queries = self.queries.to(patches.dtype).expand(len(patches), -1, -1)
        is_read = functional.pad(is_word, (len(self.queries), 0), value=True)  # (P, Q + L)
        read = self.transformer(
            ids, query_embeds=queries, encoder_hidden_states=patches,
            attention_mask=is_read[:, None, None], encoder_attention_mask=is_patch[:, None, None],
        ).last_hidden_state[:, : len(self.queries)]  # fmt: skip
        return list(self.project(read.to(patches.dtype)))


@dataclass(frozen=True)
class InstructQFormer:
    """InstructBLIP's Q-Former. The defaults are InstructBLIP's: the size of BERT-base, and 32 queries."""

    tokenizer: str | None = None  # folder or hub name, InstructBLIP: BERT's; None: the language model's tokenizer
    max_question: int = 128  # most tokens of a question, as in the training code of InstructBLIP (`max_txt_len` in LAVIS)
    queries: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    every: int = 2  # 2: every second layer has cross-attention
    dropout: float = 0.1  # as in the training of BERT

    def __post_init__(self) -> None:
        check_range(self, "max_question", least=1, below=POSITIONS + 1)

    def grid_of(self, grid: Grid) -> Grid:
        """Return a grid without rows and columns, with one extra token per query."""
        return Grid(0, 0, extra=self.queries)

    def question_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Return the second tokenizer, or None if the part uses the language model's."""
        return None if self.tokenizer is None else load_question_tokenizer(self.tokenizer)

    def question_ids(self, tokenizer: Any, text: str) -> list[int]:
        """Return the ids of a question. `tokenizer` is the language model's."""
        return question_ids(self.question_tokenizer() or tokenizer, text, self.max_question)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid, *, text: TextFacts) -> nn.Module:
        """Return the module. It accepts any number of patches."""
        config = self.config(facts.width, text.vocabulary)
        config._attn_implementation = "sdpa"  # accepts the masks of `InstructQueries`
        return InstructQueries(config, self.queries, out_width)

    def config(self, patch_width: int, vocabulary: int) -> InstructBlipQFormerConfig:
        """Return the transformer's configuration. `vocabulary` is the number of tokens of the language model's tokenizer."""
        own = self.question_tokenizer()
        return InstructBlipQFormerConfig(
            vocab_size=vocabulary if own is None else len(own), hidden_size=self.width, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, intermediate_size=self.mlp_width, cross_attention_frequency=self.every,
            encoder_hidden_size=patch_width, max_position_embeddings=POSITIONS, hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            pad_token_id=None,  # padding is masked, and the token with id 0 may be a word
        )  # fmt: skip
