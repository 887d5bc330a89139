"""moondream2's crops: the patches of overlapping crops are averaged to the grid of the whole image and joined with its patches.

So an image has as many tokens as a single tile, and each patch has twice the tower's width.

Source: vikhyatk/moondream2 (its published code). n tiles, N = r x c patches of a tile, C width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.pixels import Resample, resize, to_tiles
from vlmdata_train.preprocessing.overlapping_crops import Joining, canvas_of, check_crops, cut_crops, step_of


def crop_grid(width: int, height: int, step: int, max_crops: int) -> tuple[int, int]:
    """Return the (rows, columns) of crops for an image of this size, which is that of the image without its margins.

    An image with a side of at most `step` gets one crop. A larger image gets about `max_crops` crops in its aspect ratio. If
    `max_crops` crops do not cover it in its own size, it gets the rows and columns that would cover it, reduced equally.
    """
    if min(width, height) <= step:
        return 1, 1
    rows, columns = math.ceil(height / step), math.ceil(width / step)
    if rows * columns > max_crops:
        part = math.sqrt(max_crops / (rows * columns))
        return max(int(rows * part), 1), max(int(columns * part), 1)
    rows = max(int(math.sqrt(max_crops * height / width)), rows)
    columns = max(int(math.sqrt(max_crops * width / height)), columns)
    if rows * columns > max_crops:
        return (rows, max_crops // rows) if columns > rows else (max_crops // columns, columns)
    return rows, columns


@dataclass(frozen=True)
class PairedCrops:
    """Turns an image into a tile of the whole image and the crops of a large copy, which become one grid of wide patches.

    The image is stretched. moondream2's tower is SigLIP so400m with 378 px and `{layer: -1, norm: true}`. Its abstractor is
    `mlp: {mlp_width: 8192, activation: gelu_pytorch_tanh}`.
    """

    max_crops: int = 12  # maximum number of crops of the large copy; moondream2: 12
    margin: int = 4  # patches on each side of a crop that a neighbour shows too; moondream2: 4
    resample: Resample = "lanczos"  # as in moondream2 without libvips

    def __post_init__(self) -> None:
        if self.max_crops < 1:
            raise ValueError(f"max_crops must be 1 or more, not {self.max_crops}")
        if self.margin < 0:
            raise ValueError(f"margin must be 0 patches or more, not {self.margin}")

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the whole image, then the crops row by row: uint8 (H, W, 3) -> uint8 (1 + crops, 3, side, side)."""
        side = facts.image_size
        rows, columns = self.crops(image.shape[1], image.shape[0], facts)
        large = resize(image, *canvas_of(rows, columns, facts, self.margin), self.resample)
        crops = cut_crops(large, rows, columns, side, step_of(facts, self.margin))
        return to_tiles([resize(image, side, side, self.resample), *crops])

    def crops(self, width: int, height: int, facts: EncoderFacts) -> tuple[int, int]:
        """Return the (rows, columns) of the crops."""
        margins = 2 * self.margin * facts.patch_size
        return crop_grid(width - margins, height - margins, step_of(facts, self.margin), self.max_crops)

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the whole image, which both copies show."""
        return Frame(facts.image_size, facts.image_size)

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles of an image, including the tile of the whole image."""
        rows, columns = self.crops(width, height, facts)
        return 1 + rows * columns

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return one region, which is the same for any size."""
        return [Region(grid_of(facts.image_size, facts.image_size))]

    def joined_facts(self, facts: EncoderFacts) -> EncoderFacts:
        """Return the facts of the joined patches, which are twice as wide as the tower's."""
        return replace(facts, width=2 * facts.width)

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return the module that joins the tiles. It has no weights.

        Raises ValueError for tiles with a class token, or for a margin that leaves no patch of a crop.
        """
        check_crops(facts, self.margin, "paired_crops")
        return Pairing(self, facts)


class Pairing(Joining):
    """Joins the patches of the whole image with the averaged patches of the crops, before the abstractor."""

    def forward(self, tiles: Tensor, *, width: int, height: int) -> list[tuple[Tensor, Grid]]:
        """Return one picture with its grid: (n, N, C) -> (N, 2 C), the whole image's channels first."""
        large = self.stitched(tiles, width, height).permute(2, 0, 1)
        local = functional.adaptive_avg_pool2d(large, (self.grid.rows, self.grid.columns))  # (C, r, c)
        return [(torch.cat([tiles[0], local.flatten(1).T], -1), self.grid)]
