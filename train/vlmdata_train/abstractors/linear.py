"""One linear layer per feature: LLaVA 1.0, PaliGemma. Liu et al. 2023, Visual Instruction Tuning."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


@dataclass(frozen=True)
class Linear:
    """(P, N, C) -> (P, N, D)."""

    bias: bool = True

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid unchanged: one token per patch."""
        return grid

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the layer."""
        return nn.Linear(facts.width, out_width, bias=self.bias)
