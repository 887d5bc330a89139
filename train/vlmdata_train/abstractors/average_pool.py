"""Squares of neighbouring patches averaged, then an MLP: Gemma 3, LLaVA-OneVision's video frames, DeCo.

P tiles, r x c patches, C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.abstractors.mlp import Mlp
from vlmdata_train.abstractors.pixel_shuffle import coarser
from vlmdata_train.encoders import Grid


class AveragePoolLayers(nn.Module):
    """Average, then the layers of an MLP."""

    def __init__(self, grid: Grid, side: int, layers: nn.Module) -> None:
        super().__init__()
        self.grid, self.side, self.layers = grid, side, layers

    def forward(self, features: Tensor) -> Tensor:
        """(P, N, C) -> (P, N / side^2, D)."""
        picture = features.transpose(1, 2).unflatten(2, (self.grid.rows, self.grid.columns))  # (P, C, r, c)
        return self.layers(functional.avg_pool2d(picture, self.side).flatten(2).transpose(1, 2))


@dataclass(frozen=True)
class AveragePool:
    """`factor` x `factor` patches become one token."""

    factor: int = 2
    layers: int = 2
    activation: Literal["gelu", "gelu_pytorch_tanh", "relu", "silu"] = "gelu"
    norm: bool = False
    bias: bool = True

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of squares."""
        return coarser(grid, self.factor)

    def build(self, in_width: int, out_width: int, grid: Grid) -> nn.Module:
        """Make the module for tiles of this grid."""
        mlp = Mlp(layers=self.layers, activation=self.activation, norm=self.norm, bias=self.bias)
        return AveragePoolLayers(grid, self.factor, mlp.build(in_width, out_width, self.grid_of(grid)))
