"""BLIP-2's Q-Former: learned queries in a BERT with cross-attention to the patches, then a linear layer.

Source: Li et al. 2023, BLIP-2. The transformer is Hugging Face's.

P images, N patches, Q queries, C and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class Queries(nn.Module):
    """The network of `QFormer`: patches (P, N, C) -> queries (P, Q, D)."""

    def __init__(self, config: Blip2QFormerConfig, queries: int, out_width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, config.hidden_size) * config.initializer_range)
        self.transformer = Blip2QFormerModel(config)
        self.project = nn.Linear(config.hidden_size, out_width)

    def forward(self, features: Tensor) -> Tensor:
        """Run the transformer and project its output: (P, N, C) -> (P, Q, D).

        By default, every second layer attends to the patches.
        """
        queries = self.queries.to(features.dtype).expand(len(features), -1, -1)
        read = self.transformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state
        return self.project(read.to(features.dtype))


@dataclass(frozen=True)
class QFormer:
    """BLIP-2's Q-Former. The defaults are BLIP-2's: the size of BERT-base, and 32 queries."""

    queries: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    every: int = 2  # 2: every second layer has cross-attention
    dropout: float = 0.1  # as in the training of BERT

    def grid_of(self, grid: Grid) -> Grid:
        """Return a grid without rows and columns, with one extra token per query."""
        return Grid(0, 0, extra=self.queries)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module. It accepts any number of patches."""
        config = Blip2QFormerConfig(
            hidden_size=self.width, num_hidden_layers=self.layers, num_attention_heads=self.heads,
            intermediate_size=self.mlp_width, cross_attention_frequency=self.every, encoder_hidden_size=facts.width,
            use_qformer_text_input=False,  # only BLIP-2's first stage needs the layers for text
            hidden_dropout_prob=self.dropout, attention_probs_dropout_prob=self.dropout,
        )  # fmt: skip
        return Queries(config, self.queries, out_width)
