"""The image in its own size and shape, at most so large, in whole patches, with a newline after each row: Fuyu, OtterHD.

Bavishi et al. 2023, Fuyu-8B. M tokens of an image, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vlmdata_train.encoders import EncoderFacts, Grid
from vlmdata_train.pixels import Resample, pad, resize, to_tiles


@dataclass(frozen=True)
class Native:
    """One tile of a size of its own. A smaller image is never enlarged; it is padded to whole patches at right and below."""

    max_height: int = 1080  # Fuyu's
    max_width: int = 1920  # Fuyu's
    newline: bool = True  # a learned vector after each row of patches
    resample: Resample = "bilinear"  # Fuyu's

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """uint8 (H, W, 3) -> uint8 (1, 3, rows * patch, columns * patch), the padding Fuyu's, 1 of 255."""
        height, width = self._fitted(image.shape[1], image.shape[0])
        rows, columns = self._rows_columns(image.shape[1], image.shape[0], facts.patch_size)
        image = resize(image, height, width, self.resample)
        patch = facts.patch_size
        return to_tiles([pad(image, rows * patch, columns * patch, top=0, left=0, colour=(1, 1, 1))])

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return 1, whatever the size."""
        return 1

    def tokens_of(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> int:
        """Return the tokens of the image's own grid, a newline for each of its rows included."""
        rows, columns = self._rows_columns(width, height, facts.patch_size)
        grid = grid_of(rows * facts.patch_size, columns * facts.patch_size)
        return grid.tokens + (grid.rows if self.newline else 0)

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Make the module that ends rows, if rows are ended."""
        return RowEnds(self, facts, grid_of, width) if self.newline else None

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        scale = min(self.max_height / height, self.max_width / width)
        if scale >= 1:
            return height, width
        return max(int(height * scale), 1), max(int(width * scale), 1)

    def _rows_columns(self, width: int, height: int, patch: int) -> tuple[int, int]:
        height, width = self._fitted(width, height)
        return math.ceil(height / patch), math.ceil(width / patch)


class RowEnds(nn.Module):
    """One tile of an image, (1, M, D) -> its sequence (rows * (columns + 1), D)."""

    def __init__(self, plan: Native, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> None:
        super().__init__()
        self.plan, self.facts, self.grid_of = plan, facts, grid_of
        self.newline = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def forward(self, tiles: Tensor, *, width: int, height: int) -> Tensor:
        """Put the newline after each row."""
        patch = self.facts.patch_size
        rows, columns = self.plan._rows_columns(width, height, patch)
        grid = self.grid_of(rows * patch, columns * patch)
        picture = tiles[0].unflatten(0, (grid.rows, grid.columns))
        return torch.cat([picture, self.newline.to(picture.dtype).expand(grid.rows, 1, -1)], 1).flatten(0, 1)
