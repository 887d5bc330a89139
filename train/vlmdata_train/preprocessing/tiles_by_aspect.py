"""Llama 3.2 Vision's tiles: the image keeps its aspect ratio on the best grid of tiles, with padding right and below.

Dubey et al. 2024, The Llama 3 Herd of Models. The grid is chosen as in Llama 3.2 Vision's image processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.pixels import Resample, pad, resize, to_tiles


def all_grids(max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Return all grids (rows, columns) of 1 to `max_tiles` tiles."""
    sides = range(1, max_tiles + 1)
    return tuple((rows, columns) for rows in sides for columns in sides if rows * columns <= max_tiles)


def best_grid(width: float, height: float, side: int, grids: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the grid (rows, columns) of tiles onto which the image is enlarged least.

    If the image is too large for every grid, return the grid for which it is reduced least. If there are several such grids,
    return the one with the fewest tiles.
    """
    scales = [min(rows * side / height, columns * side / width) for rows, columns in grids]
    best = min((scale for scale in scales if scale >= 1), default=max(scales))
    return min((grid for grid, scale in zip(grids, scales, strict=True) if scale == best), key=lambda grid: grid[0] * grid[1])


def fitted(width: int, height: int, canvas: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the (height, width) of the image on a canvas (height, width).

    An image that fits keeps its size, but an image that is smaller than one tile is enlarged to the tile.
    """
    rows, columns = min(max(height, side), canvas[0]), min(max(width, side), canvas[1])
    if columns / width < rows / height:
        return min(max(math.floor(height * (columns / width)), 1), rows), columns
    return rows, min(max(math.floor(width * (rows / height)), 1), columns)


@dataclass(frozen=True)
class TilesByAspect:
    """Turns an image into the tiles of one grid. A tower that reads all tiles of an image at once determines the grids."""

    max_tiles: int = 4  # maximum number of tiles, for towers that read each tile alone; 4 as in Llama 3.2 Vision
    resample: Resample = "bilinear"  # as in Llama 3.2 Vision

    def __post_init__(self) -> None:
        if self.max_tiles < 1:
            raise ValueError(f"max_tiles must be 1 or more, not {self.max_tiles}")

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the tiles row by row: uint8 (H, W, 3) -> uint8 (rows * columns, 3, side, side). The padding is black."""
        height, width = image.shape[:2]
        side = facts.image_size
        rows, columns = self.tile_grid(width, height, facts)
        canvas = rows * side, columns * side
        image = resize(image, *fitted(width, height, canvas, side), self.resample)
        large = pad(image, *canvas, top=0, left=0, colour=(0, 0, 0))
        corners = [(y, x) for y in range(0, canvas[0], side) for x in range(0, canvas[1], side)]
        return to_tiles([large[y : y + side, x : x + side] for y, x in corners])

    def tile_grid(self, width: int, height: int, facts: EncoderFacts) -> tuple[int, int]:
        """Return the (rows, columns) of the tiles of an image."""
        return best_grid(width, height, facts.image_size, facts.tile_grids or all_grids(self.max_tiles))

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the tiles together, with padding at the right or at the bottom."""
        side = facts.image_size
        rows, columns = self.tile_grid(width, height, facts)
        inner = fitted(width, height, (rows * side, columns * side), side)
        return Frame.placed(columns * side, rows * side, inner[::-1])

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles of an image."""
        rows, columns = self.tile_grid(width, height, facts)
        return rows * columns

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return the tiles row by row."""
        rows, columns = self.tile_grid(width, height, facts)
        grid = grid_of(facts.image_size, facts.image_size)
        return [Region(grid, row, column) for row in range(rows) for column in range(columns)]

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None, because the features of the tiles are concatenated in order."""
        return None
