"""Kosmos-2's resampler: learned queries attend to the patches and to themselves in one layer, without norms.

Source: Peng et al. 2023, Kosmos-2: Grounding Multimodal Large Language Models to the World.

P images, N patches, Q queries, C and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.abstractors.query_resampler import attend
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class JointAttention(nn.Module):
    """The network of `KosmosResampler`: patches (P, N, C) -> tokens (P, Q, D)."""

    def __init__(self, in_width: int, out_width: int, part: KosmosResampler) -> None:
        super().__init__()
        self.head_width, self.unit_length = part.head_width, part.unit_length
        self.project = nn.Linear(in_width, out_width)
        self.queries = nn.Parameter(torch.randn(part.queries, out_width))
        self.query, self.key, self.value, self.output = (nn.Linear(out_width, out_width) for _ in range(4))

    def forward(self, features: Tensor) -> Tensor:
        """Let the queries attend to the projected patches and to the queries, in one softmax: (P, N, C) -> (P, Q, D)."""
        if self.unit_length:
            features = functional.normalize(features, dim=-1)
        queries = self.queries.to(features.dtype).expand(len(features), -1, -1)
        context = torch.cat([self.project(features), queries], 1)  # (P, N + Q, D)
        return self.output(attend(self.query(queries), self.key(context), self.value(context), self.head_width))


@dataclass(frozen=True)
class KosmosResampler:
    """Kosmos-2's resampler, with Kosmos-2's defaults.

    Kosmos-2's tower is CLIP with its last norm and all tokens: `hf_vision: {layer: -1, norm: true, tokens: all}`.
    """

    queries: int = 64
    head_width: int = 64  # 32 heads of Kosmos-2's width of 2048
    unit_length: bool = True  # divide each feature vector by its length first

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise ValueError(f"queries must be 1 or more, not {self.queries}")

    def grid_of(self, grid: Grid) -> Grid:
        """Return a grid without rows and columns, with one extra token per query."""
        return Grid(0, 0, extra=self.queries)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module. It accepts any number of patches. Raises ValueError if `head_width` does not divide the width."""
        if out_width % self.head_width:
            raise ValueError(f"the language model's width, {out_width}, must be divisible by head_width, {self.head_width}")
        return JointAttention(facts.width, out_width, self)
