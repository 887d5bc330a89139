"""The image is padded to whole patches, and only a large image is scaled down. A newline vector ends each row of patches.

Source: Bavishi et al. 2023, Fuyu-8B. OtterHD does the same.

M tokens of an image, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid
from vlmdata_train.model.pixels import Resample, pad, resize, to_tiles


@dataclass(frozen=True)
class Native:
    """Turns an image into one tile, padded at the right and bottom to whole patches.

    An image above the limits is scaled down. A smaller image keeps its size.
    """

    max_height: int = 1080  # as in Fuyu
    max_width: int = 1920  # as in Fuyu
    newline: bool = True  # add a learned vector after each row of patches
    resample: Resample = "bilinear"  # as in Fuyu

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the tile: uint8 (H, W, 3) -> uint8 (1, 3, rows * patch, columns * patch). Padding pixels are 1, as in Fuyu."""
        small = resize(image, *self._fitted(image.shape[1], image.shape[0]), self.resample)
        height, width = self.tile_size(image.shape[1], image.shape[0], facts)
        return to_tiles([pad(small, height, width, top=0, left=0, colour=(1, 1, 1))])

    def tile_size(self, width: int, height: int, facts: EncoderFacts) -> tuple[int, int]:
        """Return the (height, width) of the tile, in whole patches."""
        patch = facts.patch_size
        height, width = self._fitted(width, height)
        return math.ceil(height / patch) * patch, math.ceil(width / patch) * patch

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles, which is 1 for any size."""
        return 1

    def tokens_of(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> int:
        """Return the number of tokens of the image's grid, including a newline for each row if `newline` is true."""
        grid = grid_of(*self.tile_size(width, height, facts))
        return grid.tokens + (grid.rows if self.newline else 0)

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return the module that adds the newlines, or None if `newline` is false."""
        return RowEnds(self.tile_size, facts, grid_of, width) if self.newline else None

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        scale = min(self.max_height / height, self.max_width / width)
        if scale >= 1:
            return height, width
        return max(int(height * scale), 1), max(int(width * scale), 1)


class RowEnds(nn.Module):
    """Turns the tile of an image, (1, M, D), into a sequence, (rows * (columns + 1), D), with a learned vector after each row.

    `tile_size` returns the (height, width) of an image's tile. With `ends_image`, a different vector follows the last row.
    """

    def __init__(
        self, tile_size: Callable[[int, int, EncoderFacts], tuple[int, int]], facts: EncoderFacts,
        grid_of: Callable[[int, int], Grid], width: int, *, ends_image: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tile_size, self.facts, self.grid_of = tile_size, facts, grid_of
        self.newline = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.end = nn.Parameter(torch.randn(width) / math.sqrt(width)) if ends_image else None

    def forward(self, tiles: Tensor, *, width: int, height: int) -> Tensor:
        """Return the tile's tokens as a sequence, row by row, with a learned vector after each row."""
        grid = self.grid_of(*self.tile_size(width, height, self.facts))
        picture = tiles[0].unflatten(0, (grid.rows, grid.columns))
        ends = self.newline.to(picture.dtype).expand(grid.rows, -1)  # (rows, D)
        if self.end is not None:
            # An image of one row does not use `newline`, which still needs a gradient (of zeros).
            ends = torch.cat([ends[1:], self.end.to(picture.dtype)[None] + 0 * ends[:1]])
        return torch.cat([picture, ends[:, None]], 1).flatten(0, 1)
