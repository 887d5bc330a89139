"""The image is resized to whole squares of patches within limits on pixels. The aspect ratio stays about the same.

Wang et al. 2024, Qwen2-VL.
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


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the (height, width) in multiples of `factor`, with about the same aspect ratio and within the limits on pixels.

    Qwen2-VL's function refuses images with an aspect ratio above 200. This function accepts them. Both
    results are at least `factor`.
    """
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return rows, columns


@dataclass(frozen=True)
class SmartSize:
    """Turns an image into one tile of about the image's own size."""

    min_pixels: int = 56 * 56  # the value of Qwen2-VL's processor
    max_pixels: int = 28 * 28 * 1280  # the value of Qwen2-VL's processor
    square: int = 2  # side, in patches, of a square that the abstractor merges
    resample: Resample = "bicubic"

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the tile: uint8 (H, W, 3) -> uint8 (1, 3, rows, columns)."""
        rows, columns = self.tile_size(image.shape[1], image.shape[0], facts)
        return to_tiles([resize(image, rows, columns, self.resample)])

    def tile_size(self, width: int, height: int, facts: EncoderFacts) -> tuple[int, int]:
        """Return the (height, width) of the tile."""
        return smart_resize(height, width, facts.patch_size * self.square, self.min_pixels, self.max_pixels)

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the whole image. Its size is that after resizing."""
        rows, columns = self.tile_size(width, height, facts)
        return Frame(columns, rows)

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles, which is 1 for any size."""
        return 1

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return one region with the image's grid."""
        return [Region(grid_of(*self.tile_size(width, height, facts)))]

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None, because one tile needs no arrangement."""
        return None
