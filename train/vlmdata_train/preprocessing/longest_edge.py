"""The image keeps its aspect ratio and is resized to whole patches or squares of patches, as in Pixtral and Mistral 3.

Agrawal et al. 2024, Pixtral 12B. The writing `rows` puts the tokens [IMG_BREAK] and [IMG_END] after the rows.
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


@dataclass(frozen=True)
class LongestEdge:
    """Turns an image into one tile of about the image's own size.

    An image with a side above `longest` is scaled down. Then each side is rounded up to whole squares of
    `square` x `square` patches.
    """

    longest: int = 1024  # maximum of the longer side; the value of Pixtral's processor
    square: int = 1  # side, in patches, of a square that the abstractor merges; Mistral 3: 2
    resample: Resample = "bicubic"

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the tile: uint8 (H, W, 3) -> uint8 (1, 3, rows * patch, columns * patch)."""
        return to_tiles([resize(image, *self.tile_size(image.shape[1], image.shape[0], facts), self.resample)])

    def tile_size(self, width: int, height: int, facts: EncoderFacts) -> tuple[int, int]:
        """Return the (height, width) of the tile. Sides are scaled down to `longest`, then rounded up to whole squares."""
        shrink, unit = max(height / self.longest, width / self.longest, 1.0), facts.patch_size * self.square
        rows, columns = (math.ceil(max(math.floor(side / shrink), 1) / unit) for side in (height, width))
        return rows * unit, columns * unit

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
