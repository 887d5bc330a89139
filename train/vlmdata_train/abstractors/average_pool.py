"""Average the patches in each square of the grid, then apply an MLP, as in Gemma 3, LLaVA-OneVision's video frames, and DeCo.

With `side`, the squares are as large as needed for a fixed number of tokens, as in DeCo and in a variant of Honeybee.

P tiles, r x c patches, s the side of a square or of the grid of tokens, C width.
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


def average_to(features: Tensor, grid: Grid, side: int) -> Tensor:
    """Return `side` x `side` averages that together cover the grid: (P, r c, C) -> (P, s^2, C).

    If `side` does not divide the grid, the averaged areas overlap.
    """
    picture = features.transpose(1, 2).unflatten(2, (grid.rows, grid.columns))  # (P, C, r, c)
    return functional.adaptive_avg_pool2d(picture, side).flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class AveragePool(Mlp):
    """Turns each square of `factor` x `factor` patches into one token, or any grid into `side` x `side` tokens."""

    factor: int = 2  # not used if `side` is set
    side: int | None = None  # Honeybee: 12, 16 and 24

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side is not None and self.side < 1:
            raise ValueError(f"side must be 1 or more, not {self.side}")

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of tokens. Raises ValueError for extra tokens, or for a grid that `factor` does not divide."""
        if self.side is None:
            return coarser(grid, self.factor)
        if grid.extra:
            raise ValueError("average_pool cannot use a class token, because it has no place in the grid of patches")
        return Grid(self.side, self.side)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module. It accepts tiles of any grid that `grid_of` accepts."""
        layers = super().build(facts, out_width, self.grid_of(grid))
        if self.side is not None:
            return SquareLayers(grid, self.side, average_to, layers)
        return SquareLayers(grid, self.factor, average, layers)
