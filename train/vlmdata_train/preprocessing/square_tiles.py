"""Idefics3's tiles: the longer side is resized to `longest`, then both sides to whole tiles. A tile of the whole image follows.

Laurençon et al. 2024, Building and better understanding vision-language models (Idefics3); SmolVLM does the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.pixels import Resample, resize, to_tiles

MAX_SIDE = 4096  # maximum side in pixels, as in Idefics3


@dataclass(frozen=True)
class SquareTiles:
    """Turns an image into square tiles. If there are several, a tile of the whole image follows. Small images are enlarged."""

    longest: int = 1456  # Idefics3: 4 tiles of 364
    resample: Resample = "lanczos"

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the tiles row by row, then the whole image: uint8 (H, W, 3) -> uint8 (tiles, 3, side, side)."""
        side = facts.image_size
        first, second = self._sizes(image.shape[1], image.shape[0], side)
        large = resize(resize(image, *first, self.resample), *second, self.resample)
        if max(second) <= side:
            return to_tiles([large])
        corners = [(y, x) for y in range(0, second[0], side) for x in range(0, second[1], side)]
        tiles = [large[y : y + side, x : x + side] for y, x in corners]
        return to_tiles([*tiles, resize(large, side, side, self.resample)])

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the whole image. Its size is that of the tiles together."""
        rows, columns = self._sizes(width, height, facts.image_size)[1]
        return Frame(columns, rows)

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles of an image, including the tile of the whole image."""
        rows, columns = (size // facts.image_size for size in self._sizes(width, height, facts.image_size)[1])
        return 1 if rows * columns == 1 else rows * columns + 1

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return the tiles row by row, then the whole image. An image of one tile has one region, which is the whole image."""
        rows, columns = (size // facts.image_size for size in self._sizes(width, height, facts.image_size)[1])
        grid = grid_of(facts.image_size, facts.image_size)
        tiles = [Region(grid, row, column) for row in range(rows) for column in range(columns)] if rows * columns > 1 else []
        return [*tiles, Region(grid, is_overview=True)]

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None: no module is needed, because the features of the tiles are only concatenated in order."""
        return None

    def _sizes(self, width: int, height: int, side: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the (height, width) after the first and the second resizing, both rounded as in Idefics3."""
        if width >= height:
            short, long = _even(int(self.longest / (width / height))), self.longest
        else:
            short, long = _even(int(self.longest * (width / height))), self.longest
        if long > MAX_SIDE:
            short, long = max(int(MAX_SIDE * short / long), 1), MAX_SIDE
        height, width = (short, long) if width >= height else (long, short)
        ratio = width / height
        if width >= height:
            columns = math.ceil(width / side) * side
            return (height, width), (math.ceil(int(columns / ratio) / side) * side, columns)
        rows = math.ceil(height / side) * side
        return (height, width), (rows, math.ceil(int(rows * ratio) / side) * side)


def _even(size: int) -> int:
    return max(size + size % 2, 1)
