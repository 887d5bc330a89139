"""Molmo's connector: the mean of each square of patches attends to the patches of the square, then a gated MLP follows.

Source: Deitke et al. 2024, Molmo and PixMo.

P tiles, N = r x c patches, s the side of a square, M squares, C, W and D widths, H heads, E head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.abstractors.gated_resampler import GatedMlp
from vlmdata_train.abstractors.pixel_shuffle import shuffle
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


def padded_squares(features: Tensor, grid: Grid, side: int) -> Tensor:
    """Return the patches of each square: (P, r c, C) -> (P, M, s^2, C).

    Zeros complete the squares at the right and bottom border.
    """
    picture = features.unflatten(1, (grid.rows, grid.columns))
    picture = functional.pad(picture, (0, 0, 0, -grid.columns % side, 0, -grid.rows % side))  # (P, rows, columns, C)
    whole = Grid(picture.shape[1], picture.shape[2])
    return shuffle(picture.flatten(1, 2), whole, side).unflatten(2, (side**2, -1))


class SquareAttention(nn.Module):
    """The network of `AttentionPool`: patches (P, N, C) -> tokens (P, M, D), for tiles of any size."""

    takes_grid = True

    def __init__(self, in_width: int, out_width: int, grid: Grid, part: AttentionPool) -> None:
        super().__init__()
        self.grid, self.side, self.heads = grid, part.factor, part.heads
        inner, width = part.heads * part.head_width, in_width // part.layers
        self.query, self.key, self.value = (nn.Linear(in_width, inner) for _ in range(3))
        self.output = nn.Linear(inner, width)
        self.mlp = GatedMlp(width, part.mlp_width or 4 * out_width, out_width)

    def forward(self, features: Tensor, grid: Grid | None = None) -> Tensor:
        """Pool the squares of tiles with this grid: (P, N, C) -> (P, M, D). A grid of None is that of `build`."""
        grid = grid or self.grid
        squares = padded_squares(features, grid, self.side)  # (P, M, s^2, C)
        ones = torch.ones(1, grid.rows * grid.columns, 1, device=features.device, dtype=torch.bool)
        is_patch = padded_squares(ones, grid, self.side)[0, :, :, 0]  # (M, s^2)
        mean = squares.sum(2, keepdim=True) / is_patch.sum(1)[:, None, None]  # (P, M, 1, C)
        query, key, value = (
            states.unflatten(-1, (self.heads, -1)).transpose(2, 3)  # (P, M, H, 1 or s^2, E)
            for states in (self.query(mean), self.key(squares), self.value(squares))
        )
        # A kernel for attention would get P M H problems of s^2 keys each, which are more than a GPU's grid has.
        scores = (query @ key.transpose(-1, -2)).float() / math.sqrt(query.shape[-1])  # (P, M, H, 1, s^2)
        weights = scores.masked_fill(~is_patch[:, None, None], -math.inf).softmax(-1).to(value.dtype)
        return self.mlp(self.output((weights @ value).flatten(2)))


@dataclass(frozen=True)
class AttentionPool:
    """Turns each square of `factor` x `factor` patches into one token, as Molmo.

    Molmo's tower is CLIP ViT-L/14-336 with two layers: `hf_vision: {layer: [-3, -10]}`. Its code calls them -2 and -9, because
    it has only the first 23 of the 24 blocks. A square at the border may be incomplete. Molmo adds learned vectors to patches
    of padding. This part does not.
    """

    factor: int = 2  # Molmo
    layers: int = 2  # layers whose features the tower concatenates; the pooled features have the width of one layer; Molmo: 2
    heads: int = 16  # those of the tower; Molmo: 16
    head_width: int = 64  # that of the tower; Molmo: 64, Molmo 2: 72
    mlp_width: int | None = None  # Molmo 7B-D: 18944, the intermediate size of its language model; None: 4 D

    def __post_init__(self) -> None:
        if min(self.factor, self.layers, self.heads, self.head_width) < 1:
            raise ValueError("factor, layers, heads and head_width must be 1 or more")

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of tokens, one for each complete or incomplete square. Raises ValueError for a class token."""
        if grid.extra:
            raise ValueError("attention_pool cannot use a class token, because it has no place in the grid of patches")
        return Grid(math.ceil(grid.rows / self.factor), math.ceil(grid.columns / self.factor))

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module. It accepts tiles of any grid.

        Raises ValueError for a class token, or if the tower's width is not that of `layers` concatenated layers.
        """
        self.grid_of(grid)
        if facts.width % self.layers:
            raise ValueError(
                f"the tower's width, {facts.width}, must be divisible by layers, the number of its concatenated layers, "
                f"but layers is {self.layers}"
            )
        return SquareAttention(facts.width, out_width, grid, self)
