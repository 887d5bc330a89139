"""LLaVA-UHD's slices, as in MiniCPM-V 2.5 and 2.6: a small copy of the whole image, then a large copy cut into equal slices.

Each tile has about the number of pixels of the tower's training images, and about the aspect ratio of its part of the image.

Source: Xu et al. 2024, LLaVA-UHD; Yao et al. 2024, MiniCPM-V.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.pixels import Resample, resize


def slice_grid(width: int, height: int, side: int, max_slices: int) -> tuple[int, int] | None:
    """Return the grid (rows, columns) of slices, or None if the image has no more pixels than one tile of `side` x `side`.

    The number of slices is the number of such tiles with the image's pixels, one less or one more, and at most `max_slices`.
    Among these grids, return the one whose aspect ratio is nearest to the image's on a logarithmic scale. If there are several
    such grids, return the one with the fewest slices, then with the fewest columns.
    """
    count = min(math.ceil(width * height / side**2), max_slices)
    if count <= 1:
        return None
    counts = [number for number in (count - 1, count, count + 1) if 1 < number <= max_slices]
    grids = [(number // columns, columns) for number in counts for columns in range(1, number + 1) if number % columns == 0]
    return min(grids, key=lambda grid: abs(math.log(width / height) - math.log(grid[1] / grid[0])))


def nearest_multiple(length: float, step: int) -> int:
    """Return the multiple of `step` that is nearest to a length, but at least `step`."""
    return max(round(length / step) * step, step)


def tile_size(width: float, height: float, side: int, step: int) -> tuple[int, int]:
    """Return the (height, width) of a tile with about `side` x `side` pixels and this aspect ratio, in multiples of `step`."""
    ratio = width / height
    rows = int(side / math.sqrt(ratio))
    return nearest_multiple(rows, step), nearest_multiple(int(rows * ratio), step)


@dataclass(frozen=True)
class Slices:
    """Turns an image into a tile of the whole image and the slices of a large copy. A small image has no slices.

    Use it with the tower `siglip_navit` and an abstractor for any number of patches, such as `query_resampler`.
    """

    max_slices: int = 9  # MiniCPM-V 2.5 and 2.6
    side: int = 448  # px; a tile has about side x side pixels; MiniCPM-V 2.5 and 2.6
    square: int = 1  # sides are multiples of this number of patches; MiniCPM-V 4.6: 4
    resample: Resample = "bicubic"  # as in MiniCPM-V

    def __post_init__(self) -> None:
        if min(self.max_slices, self.side, self.square) < 1:
            raise ValueError(
                f"max_slices, side and square must be 1 or more, not {self.max_slices}, {self.side} and {self.square}"
            )

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> list[Tensor]:
        """Return the whole image, then the slices row by row: uint8 (H, W, 3) -> uint8 (3, H, W) each."""
        height, width = image.shape[:2]
        sizes = self.tile_sizes(width, height, facts)
        tiles = [resize(image, *sizes[0], self.resample)]
        grid = slice_grid(width, height, self.side, self.max_slices)
        if grid is not None:
            (rows, columns), (down, across) = grid, sizes[1]
            large = resize(image, rows * down, columns * across, self.resample)
            corners = [(row * down, column * across) for row in range(rows) for column in range(columns)]
            tiles += [large[y : y + down, x : x + across] for y, x in corners]
        return [torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1))) for tile in tiles]

    def tile_sizes(self, width: int, height: int, facts: EncoderFacts) -> list[tuple[int, int]]:
        """Return the (height, width) of each tile of an image. All slices have the same size."""
        step = facts.patch_size * self.square
        whole = tile_size(width, height, self.side, step)
        grid = slice_grid(width, height, self.side, self.max_slices)
        if grid is None:
            return [whole]
        rows, columns = grid
        part = nearest_multiple(width, columns) / columns, nearest_multiple(height, rows) / rows
        return [whole, *[tile_size(*part, self.side, step)] * (rows * columns)]

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the whole image. Its size is that of the tile of the whole image."""
        rows, columns = self.tile_sizes(width, height, facts)[0]
        return Frame(columns, rows)

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles of an image, including the tile of the whole image."""
        rows, columns = slice_grid(width, height, self.side, self.max_slices) or (0, 0)
        return 1 + rows * columns

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return the whole image, then the slices row by row, each with the grid of its own size."""
        whole, *slices = [grid_of(*size) for size in self.tile_sizes(width, height, facts)]
        _, columns = slice_grid(width, height, self.side, self.max_slices) or (0, 1)
        return [
            Region(whole, is_overview=True),
            *(Region(grid, number // columns, number % columns) for number, grid in enumerate(slices)),
        ]

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None, because the features of the tiles are concatenated in order."""
        return None
