"""Honeybee's C-Abstractor: convolutions, pooling to a square grid, and more convolutions. Convolutions preserve locality.

Source: Cha et al. 2023, Honeybee: Locality-enhanced Projector. The residual block is RegNet's, with squeeze and excitation
and groups of one channel, as in Honeybee's code.

P images, r x c patches, s x s tokens, C, W and D widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of feature maps (P, W, r, c)."""

    def forward(self, picture: Tensor) -> Tensor:
        """Return feature maps of the same shape. Each position is normalised separately."""
        return super().forward(picture.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, with a gate for each channel.

    The 3x3 convolution filters each channel separately.
    """

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(in_width, width, 1, bias=False), ChannelNorm(width), nn.SiLU())
        self.middle = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), ChannelNorm(width), nn.SiLU()
        )
        squeezed = max(1, round(in_width / 4))  # a quarter of the block's input width, as in RegNet
        self.excite = nn.Sequential(nn.Conv2d(width, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, width, 1), nn.Sigmoid())
        self.last = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), ChannelNorm(width))
        same = in_width == width
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(in_width, width, 1, bias=False), ChannelNorm(width))

    def forward(self, picture: Tensor) -> Tensor:
        """Apply the convolutions and add the input: (P, in_width, r, c) -> (P, width, r, c)."""
        inner = self.middle(self.first(picture))
        inner = inner * self.excite(inner.mean((2, 3), keepdim=True))
        return functional.silu(self.last(inner) + self.skip(picture))


class Convolutions(nn.Module):
    """The network of `CAbstractor`: patches (P, r c, C) -> tokens (P, s s, D)."""

    def __init__(self, in_width: int, out_width: int, grid: Grid, part: CAbstractor) -> None:
        super().__init__()
        self.grid, self.side = grid, part.side
        self.places = nn.Parameter(torch.randn(grid.tokens, in_width) * 0.02)  # learned position embeddings
        widths = [in_width, *[part.width] * (part.blocks - 1)]
        self.before = nn.Sequential(*(Block(width, part.width) for width in widths))
        self.after = nn.Sequential(*(Block(part.width, part.width) for _ in range(part.blocks)))
        self.project = nn.Sequential(nn.Linear(part.width, out_width), nn.SiLU(), nn.Linear(out_width, out_width))

    def forward(self, features: Tensor) -> Tensor:
        """Convolve, pool, convolve and project: (P, r c, C) -> (P, s s, D)."""
        features = features + self.places.to(features.dtype)
        picture = features.transpose(1, 2).unflatten(2, (self.grid.rows, self.grid.columns))
        picture = self.after(functional.adaptive_avg_pool2d(self.before(picture), self.side))
        return self.project(picture.flatten(2).transpose(1, 2))


@dataclass(frozen=True)
class CAbstractor:
    """Honeybee's C-Abstractor: 3 blocks before and 3 after the pooling, width 1024, 12 x 12 tokens.

    Honeybee also uses grids of 16 x 16 and 24 x 24 tokens.
    """

    side: int = 12
    width: int = 1024
    blocks: int = 3

    def __post_init__(self) -> None:
        if min(self.side, self.blocks) < 1:
            raise ValueError(f"side and blocks must be 1 or more, but are {self.side} and {self.blocks}")

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of `side` x `side` tokens, which is the same for any grid of patches."""
        return Grid(self.side, self.side)

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module for tiles of this grid. Raises ValueError for a grid with a class token."""
        if grid.extra:
            raise ValueError("convolutions cannot use a class token, because it has no place in the grid of patches")
        return Convolutions(facts.width, out_width, grid, self)
