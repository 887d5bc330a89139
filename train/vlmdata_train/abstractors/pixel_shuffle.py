"""Concatenate the patches of each square to one token, then apply an MLP, as in Idefics3, SmolVLM, InternVL, nanoVLM and
Phi-3-Vision.

P tiles, N = r x c patches, s the side of a square, C and D widths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from vlmdata_train.abstractors.mlp import Mlp
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


def shuffle(features: Tensor, grid: Grid, side: int) -> Tensor:
    """Concatenate the patches of each square: (P, r c, C) -> (P, r c / s^2, C s^2).

    The patches of a square are in reading order, as in Idefics3.
    """
    squares = features.unflatten(1, (grid.rows // side, side, grid.columns // side, side))  # (P, r/s, s, c/s, s, C)
    return squares.transpose(2, 3).flatten(3).flatten(1, 2)


def coarser(grid: Grid, side: int) -> Grid:
    """Return a grid with one token for each square of `side` x `side` patches.

    Raises ValueError if the grid has extra tokens or cannot be divided into such squares.
    """
    if side < 1:
        raise ValueError(f"the side of a square must be 1 patch or more, not {side}")
    if grid.extra:
        raise ValueError(
            f"a grid with extra tokens, such as a class token, cannot be divided into squares of {side} x {side} patches"
        )
    if grid.rows % side or grid.columns % side:
        raise ValueError(
            f"a grid of {grid.rows} x {grid.columns} patches cannot be divided into squares of {side} x {side} patches"
        )
    return Grid(grid.rows // side, grid.columns // side)


class SquareLayers(nn.Module):
    """Merges each square to one token, then runs the layers of an MLP, for tiles of any grid that can be divided."""

    takes_grid = True

    def __init__(self, grid: Grid, side: int, merge: Callable[[Tensor, Grid, int], Tensor], layers: nn.Module) -> None:
        super().__init__()
        self.grid, self.side, self.merge, self.layers = grid, side, merge, layers

    def forward(self, features: Tensor, grid: Grid | None = None) -> Tensor:
        """Merge the squares of tiles with this grid and run the layers: (P, N, C) -> (P, N / s^2, D).

        A grid of None is that of `build`.
        """
        return self.layers(self.merge(features, grid or self.grid, self.side))


@dataclass(frozen=True)
class PixelShuffle(Mlp):
    """Turns each square of `factor` x `factor` patches into one token.

    Idefics3 has factor 2 and 1 layer without bias. SmolVLM has factor 3 or 4. InternVL has factor 2, a norm and 2 layers.
    Phi-3-Vision has factor 2 and 2 layers.
    """

    factor: int = 2
    layers: int = 1

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of tokens, one for each square of `factor` x `factor` patches."""
        return coarser(grid, self.factor)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module. It accepts tiles of any grid that can be divided into squares."""
        squares = replace(facts, width=facts.width * self.factor**2)
        layers = super().build(squares, out_width, self.grid_of(grid))
        return SquareLayers(grid, self.factor, shuffle, layers)
