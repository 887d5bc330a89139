"""CogVLM's adapter: a linear layer, a layer norm and a GELU, then an MLP in which one projection gates another.

Source: Wang et al. 2023, CogVLM: Visual Expert for Pretrained Language Models.

P tiles, N patches, C and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmdata_train.abstractors import gated_resampler
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class Ends(nn.Module):
    """Adds a learned vector before the tokens of each tile and another one after them: (P, N, D) -> (P, N + 2, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.begin, self.end = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))  # zeros as in CogVLM's code

    def forward(self, features: Tensor) -> Tensor:
        """Return the tokens with both vectors."""
        begin, end = (vector.to(features.dtype).expand(len(features), 1, -1) for vector in (self.begin, self.end))
        return torch.cat([begin, features, end], 1)


@dataclass(frozen=True)
class GatedMlp:
    """Applies CogVLM's adapter to each feature: (P, N, C) -> (P, N, D). It has no biases except that of the norm."""

    ends: bool = False  # also add a learned vector before and one after the patches of each tile; CogVLM: true
    mlp_width: int | None = None  # CogVLM: the intermediate size of its language model, 11008; None: 4 D

    def __post_init__(self) -> None:
        if self.mlp_width is not None and self.mlp_width < 1:
            raise ValueError(f"mlp_width must be 1 or more, not {self.mlp_width}")

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid unchanged, because each patch becomes one token.

        With `ends`, return a grid without rows and columns, because its last token would have no place in a grid.
        """
        return Grid(0, 0, extra=grid.tokens + 2) if self.ends else grid

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the layers."""
        gated = gated_resampler.GatedMlp(out_width, self.mlp_width or 4 * out_width, out_width)
        layers = [nn.Linear(facts.width, out_width, bias=False), nn.LayerNorm(out_width), nn.GELU(), gated]
        return nn.Sequential(*layers, *([Ends(out_width)] if self.ends else []))
