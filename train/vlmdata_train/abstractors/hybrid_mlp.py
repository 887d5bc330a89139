"""A linear layer for each of several towers, then an MLP of their concatenated outputs, as in DeepSeek-VL.

Source: Lu et al. 2024, DeepSeek-VL, the hybrid aligner. P tiles, N patches, C and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class HybridLayers(nn.Module):
    """Maps features (P, N, C), in which the towers' features follow each other, to (P, N, D)."""

    def __init__(self, widths: list[int], out_width: int) -> None:
        super().__init__()
        self.widths = widths
        self.of_tower = nn.ModuleList([nn.Linear(width, out_width // len(widths)) for width in widths])
        self.activation = nn.GELU()
        self.output = nn.Linear(out_width, out_width)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features for the language model."""
        parts = zip(self.of_tower, features.split(self.widths, -1), strict=True)
        return self.output(self.activation(torch.cat([layer(own) for layer, own in parts], -1)))


@dataclass(frozen=True)
class HybridMlp:
    """Projects the features of each tower to an equal share of the width D, and applies GELU and a linear layer.

    The encoder must be `side_by_side`.
    """

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid unchanged, because each patch becomes one token."""
        return grid

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the layers. Raises ValueError for a single tower, or if D cannot be divided by the number of towers."""
        if not facts.towers:
            raise ValueError("hybrid_mlp needs several towers. Use the encoder `side_by_side`, or the abstractor `mlp`")
        if out_width % len(facts.towers):
            raise ValueError(f"hybrid_mlp cannot divide the width {out_width} among {len(facts.towers)} towers")
        return HybridLayers([tower.width for tower in facts.towers], out_width)
