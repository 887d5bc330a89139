"""The image keeps its size, except that its edges must be within limits, as in Idefics2. It may be split into quarters.

Laurençon et al. 2024, What matters when building vision-language models? (Idefics2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.pixels import Resample, resize


@dataclass(frozen=True)
class Edges:
    """Turns an image into one tile of about the image's size, or with `split` into five: its quarters, then the whole image.

    A tile whose longer edge exceeds `longest` is scaled down. Then an edge below `shortest` is stretched to it, which changes
    the aspect ratio of a narrow image. Edges need not be whole patches.
    """

    longest: int = 980  # the value of Idefics2's processor
    shortest: int = 378  # the value of Idefics2's processor
    split: bool = False  # also show the quarters of the image; Idefics2's do_image_splitting
    resample: Resample = "bilinear"  # as in Idefics2

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(f"shortest must be at least 1 and at most longest ({self.longest}), but it is {self.shortest}")

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> list[Tensor]:
        """Return the quarters in reading order, if `split` is true, then the whole: uint8 (H, W, 3) -> uint8 (3, H, W) each."""
        height, width = image.shape[:2]
        cuts = [image[rows, columns] for rows, columns in self._cuts(width, height)]
        tiles = [resize(cut, *self._fitted(cut.shape[1], cut.shape[0]), self.resample) for cut in cuts]
        return [torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1))) for tile in tiles]

    def tile_sizes(self, width: int, height: int, facts: EncoderFacts) -> list[tuple[int, int]]:
        """Return the (height, width) of each tile of an image."""
        cuts = self._cuts(width, height)
        return [self._fitted(columns.stop - columns.start, rows.stop - rows.start) for rows, columns in cuts]

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the whole image. Its size is that of the tile of the whole image."""
        rows, columns = self._fitted(width, height)
        return Frame(columns, rows)

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles, which is the same for any size: 1, or 5 with `split`."""
        return 5 if self.split else 1

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return a region for each tile, with the grid of its own size. With `split` the last is the whole image."""
        grids = [grid_of(*size) for size in self.tile_sizes(width, height, facts)]
        if not self.split:
            return [Region(grids[0])]
        return [
            *(Region(grid, number // 2, number % 2) for number, grid in enumerate(grids[:4])),
            Region(grids[4], is_overview=True),
        ]

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None, because the features of the tiles are concatenated in order.

        Raises ValueError if `shortest` is less than a patch.
        """
        if self.shortest < facts.patch_size:
            raise ValueError(f"shortest must be at least a patch of {facts.patch_size} px, but it is {self.shortest}")
        return None

    def _cuts(self, width: int, height: int) -> list[tuple[slice, slice]]:
        """Return the rows and columns of each tile in the image, before resizing.

        Each half of a side of 1 px is the whole side.
        """
        whole = (slice(0, height), slice(0, width))
        if not self.split:
            return [whole]
        rows, columns = ((slice(0, max(side // 2, 1)), slice(side // 2, side)) for side in (height, width))
        return [*((row, column) for row in rows for column in columns), whole]

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        """Return the (height, width) within the limits. The shorter edge is rounded down."""
        ratio = width / height
        if width >= height and width > self.longest:
            width, height = self.longest, int(self.longest / ratio)
        elif height > self.longest:
            width, height = int(self.longest * ratio), self.longest
        return max(height, self.shortest), max(width, self.shortest)
