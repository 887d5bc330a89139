"""InternVL's tiles: the image is resized to the grid with the nearest aspect ratio and cut, and a thumbnail is added.

Chen et al. 2024, How Far Are We to GPT-4V? (InternVL 1.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor, nn

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.pixels import Resample, resize, to_tiles


@lru_cache(maxsize=4096)
def nearest_grid(width: int, height: int, side: int, min_tiles: int, max_tiles: int) -> tuple[int, int]:
    """Return the grid (rows, columns) whose aspect ratio is nearest to the image's.

    Among grids with the same ratio, return the largest grid that has less than twice the image's pixels. If all of them have
    twice the image's pixels or more, return the smallest.
    """
    grids = [(rows, columns) for columns in range(1, max_tiles + 1) for rows in range(1, max_tiles + 1)]
    grids = sorted((grid for grid in grids if min_tiles <= grid[0] * grid[1] <= max_tiles), key=lambda g: g[0] * g[1])
    best, nearest = (1, 1), float("inf")
    for rows, columns in grids:
        distance = abs(width / height - columns / rows)
        is_large_enough = width * height > 0.5 * side * side * rows * columns
        if distance < nearest or (distance == nearest and is_large_enough):
            best, nearest = (rows, columns), distance
    return best


@dataclass(frozen=True)
class DynamicTiles:
    """Turns an image into `min_tiles` to `max_tiles` tiles. A thumbnail follows if there are several tiles."""

    min_tiles: int = 1
    max_tiles: int = 12  # as in InternVL 1.5's training; its fine-tuning scripts use 6
    thumbnail: bool = True
    resample: Resample = "bicubic"

    def __post_init__(self) -> None:
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise ValueError(
                f"min_tiles must be at least 1 and at most max_tiles ({self.max_tiles}), but it is {self.min_tiles}"
            )

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the tiles row by row, then the thumbnail: uint8 (H, W, 3) -> uint8 (tiles, 3, side, side)."""
        height, width = image.shape[:2]
        side = facts.image_size
        rows, columns = nearest_grid(width, height, side, self.min_tiles, self.max_tiles)
        large = resize(image, rows * side, columns * side, self.resample)
        tiles = [large[y * side : y * side + side, x * side : x * side + side] for y in range(rows) for x in range(columns)]
        if self.thumbnail and len(tiles) > 1:
            tiles.append(resize(image, side, side, self.resample))
        return to_tiles(tiles)

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the whole image. Its size is that of the tiles together."""
        side = facts.image_size
        rows, columns = nearest_grid(width, height, side, self.min_tiles, self.max_tiles)
        return Frame(columns * side, rows * side)

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles of an image, including the thumbnail."""
        rows, columns = nearest_grid(width, height, facts.image_size, self.min_tiles, self.max_tiles)
        return rows * columns + (self.thumbnail and rows * columns > 1)

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return the tiles row by row, then the thumbnail."""
        rows, columns = nearest_grid(width, height, facts.image_size, self.min_tiles, self.max_tiles)
        grid = grid_of(facts.image_size, facts.image_size)
        thumbnail = [Region(grid, is_overview=True)] if self.thumbnail and rows * columns > 1 else []
        return [*(Region(grid, row, column) for row in range(rows) for column in range(columns)), *thumbnail]

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None, because the features of the tiles are concatenated in order."""
        return None
