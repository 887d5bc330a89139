"""Average the patches in each square of the grid, then apply an MLP, as in Gemma 3, LLaVA-OneVision's video frames, and DeCo.

P tiles, r x c patches, s the side of a square, C width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.abstractors.mlp import Mlp
from vlmdata_train.abstractors.pixel_shuffle import SquareLayers, coarser
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


def average(features: Tensor, grid: Grid, side: int) -> Tensor:
    """Return the average of the patches in each square: (P, r c, C) -> (P, r c / s^2, C)."""
    picture = features.transpose(1, 2).unflatten(2, (grid.rows, grid.columns))  # (P, C, r, c)
    return functional.avg_pool2d(picture, side).flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class AveragePool(Mlp):
    """Turns each square of `factor` x `factor` patches into one token."""

    factor: int = 2

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of tokens, one for each square of `factor` x `factor` patches."""
        return coarser(grid, self.factor)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module for tiles of this grid."""
        return SquareLayers(grid, self.factor, average, super().build(facts, out_width, self.grid_of(grid)))
