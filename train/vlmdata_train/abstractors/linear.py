"""Apply one linear layer to each feature, as in LLaVA 1.0 and PaliGemma.

Source: Liu et al. 2023, Visual Instruction Tuning. P tiles, N patches, C and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


@dataclass(frozen=True)
class Linear:
    """Applies a linear layer to each feature: (P, N, C) -> (P, N, D)."""

    bias: bool = True

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid unchanged, because each patch becomes one token."""
        return grid

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the layer."""
        return nn.Linear(facts.width, out_width, bias=self.bias)
