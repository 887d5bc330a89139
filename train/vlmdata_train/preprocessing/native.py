"""The image is padded to whole patches, and only a large image is scaled down.

Source: Bavishi et al. 2023, Fuyu-8B. OtterHD does the same. The writing `rows` puts the token `|NEWLINE|` after each row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.pixels import Resample, pad, resize, to_tiles


@dataclass(frozen=True)
class Native:
    """Turns an image into one tile, padded at the right and bottom to whole patches.

    An image above the limits is scaled down. A smaller image keeps its size.
    """

    max_height: int = 1080  # as in Fuyu
    max_width: int = 1920  # as in Fuyu
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

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the tile, with padding at the right and at the bottom."""
        rows, columns = self.tile_size(width, height, facts)
        return Frame.placed(columns, rows, self._fitted(width, height)[::-1])

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles, which is 1 for any size."""
        return 1

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return one region with the image's grid."""
        return [Region(grid_of(*self.tile_size(width, height, facts)))]

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None, because one tile needs no arrangement."""
        return None

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        scale = min(self.max_height / height, self.max_width / width)
        if scale >= 1:
            return height, width
        return max(int(height * scale), 1), max(int(width * scale), 1)
