"""Molmo's crops: a small copy of the whole image, then a large copy in crops that overlap.

The tower reads each crop with a margin of its neighbours. The margins are removed from the patches, and the abstractor gets the
large copy as one picture, so that its squares of patches may cross the borders of crops.

Source: Deitke et al. 2024, Molmo and PixMo. n tiles, N patches of a tile, R x K patches of the large copy, C width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.pixels import pad, resize, resize_sharply, to_tiles
from vlmdata_train.preprocessing.tiles_by_aspect import all_grids, best_grid


def cut_crops(canvas: np.ndarray, rows: int, columns: int, side: int, step: int) -> list[np.ndarray]:
    """Return the crops of a canvas row by row, (side, side, 3) each. The top left corners are `step` pixels apart."""
    corners = [(row * step, column * step) for row in range(rows) for column in range(columns)]
    return [canvas[y : y + side, x : x + side] for y, x in corners]


def stitch(crops: Tensor, rows: int, columns: int, margin: int) -> Tensor:
    """Return crops as one picture without their overlap: (rows * columns, s, s, C) -> (R, K, C).

    A crop loses `margin` patches at each side that has a neighbour.
    """
    side = crops.shape[1]

    def kept(place: int, count: int) -> slice:
        return slice(margin if place > 0 else 0, side - margin if place < count - 1 else side)

    lines = []
    for row in range(rows):
        own = crops[row * columns : (row + 1) * columns, kept(row, rows)]
        lines.append(torch.cat([own[column, :, kept(column, columns)] for column in range(columns)], 1))
    return torch.cat(lines)


def step_of(facts: EncoderFacts, margin: int) -> int:
    """Return the distance of neighbouring crops in pixels, if each has this margin, in patches, on each side."""
    return facts.image_size - 2 * margin * facts.patch_size


def canvas_of(rows: int, columns: int, facts: EncoderFacts, margin: int) -> tuple[int, int]:
    """Return the (height, width), in pixels, that these rows and columns of crops show together."""
    margins, step = 2 * margin * facts.patch_size, step_of(facts, margin)
    return rows * step + margins, columns * step + margins


def check_crops(facts: EncoderFacts, margin: int, name: str) -> None:
    """Raise ValueError for tiles with a class token, or for a margin that leaves no patch of a crop.

    `name` is the name of the preprocessing.
    """
    side = facts.image_size // facts.patch_size
    if facts.extra:
        raise ValueError(f"{name} cannot use a class token, because it has no place in the grid of patches")
    if 2 * margin >= side:
        raise ValueError(f"margin must be less than half of the {side} patches of a crop's side, but it is {margin}")


@dataclass(frozen=True)
class OverlappingCrops:
    """Turns an image into a tile of the whole image and the crops of a large copy.

    The defaults are Molmo's, for a tower of 336 px. Molmo 2 has a tower of 378 px and `max_crops: 8, keep_aspect: false,
    antialias: false`. Molmo also tells its connector which patches show padding; this part does not.
    """

    max_crops: int = 12  # maximum number of crops of the large copy; Molmo: 12, Molmo 2: 8
    margin: int = 4  # patches on each side of a crop that a neighbour shows too; Molmo and Molmo 2: 4
    keep_aspect: bool = True  # pad with black in place of stretching the image; Molmo 2: false
    antialias: bool = True  # Molmo 2: false

    def __post_init__(self) -> None:
        if self.max_crops < 1:
            raise ValueError(f"max_crops must be 1 or more, not {self.max_crops}")
        if self.margin < 0:
            raise ValueError(f"margin must be 0 patches or more, not {self.margin}")

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the whole image, then the crops row by row: uint8 (H, W, 3) -> uint8 (1 + crops, 3, side, side)."""
        height, width = image.shape[:2]
        side = facts.image_size
        rows, columns = self.crops(width, height, facts)
        canvas = self._placed(image, *self.canvas(width, height, facts))
        crops = cut_crops(canvas, rows, columns, side, step_of(facts, self.margin))
        return to_tiles([self._placed(image, side, side), *crops])

    def crops(self, width: int, height: int, facts: EncoderFacts) -> tuple[int, int]:
        """Return the (rows, columns) of the crops.

        An image that is not larger than the margins of one crop gets one row or one column, as in Molmo.
        """
        margins = 2 * self.margin * facts.patch_size
        inner = [side - margins or 1e-9 for side in (width, height)]  # 1e-9, because 0 would be divided by
        rows, columns = best_grid(inner[0], inner[1], step_of(facts, self.margin), all_grids(self.max_crops))
        return rows, columns

    def canvas(self, width: int, height: int, facts: EncoderFacts) -> tuple[int, int]:
        """Return the (height, width) of the large copy, in pixels."""
        return canvas_of(*self.crops(width, height, facts), facts, self.margin)

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the image without padding, because its small and its large copy have different padding.

        Molmo's points are relative to the image too. The size is that of the small copy.
        """
        rows, columns = self._inner(width, height, facts.image_size, facts.image_size)
        return Frame(columns, rows)

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles of an image, including the tile of the whole image."""
        rows, columns = self.crops(width, height, facts)
        return 1 + rows * columns

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return the whole image, then the large copy as one picture."""
        whole, large = grid_of(facts.image_size, facts.image_size), grid_of(*self.canvas(width, height, facts))
        return [Region(whole, is_overview=True), Region(large)]

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return the module that joins the crops. It has no weights.

        Raises ValueError for tiles with a class token, or for a margin that leaves no patch of a crop.
        """
        check_crops(facts, self.margin, "overlapping_crops")
        return Joining(self, facts)

    def _placed(self, image: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """Return the image on a canvas of this size in pixels, in the middle of black padding or stretched."""
        inner = self._inner(image.shape[1], image.shape[0], rows, columns)
        sized = resize(image, *inner, "bilinear") if self.antialias else resize_sharply(image, *inner, "bilinear")
        return pad(sized, rows, columns, top=(rows - inner[0]) // 2, left=(columns - inner[1]) // 2, colour=(0, 0, 0))

    def _inner(self, width: int, height: int, rows: int, columns: int) -> tuple[int, int]:
        """Return the (height, width) of the image on a canvas of this size, in pixels."""
        if not self.keep_aspect:
            return rows, columns
        scale = min(rows / height, columns / width)
        return min(max(int(height * scale), 1), rows), min(max(int(width * scale), 1), columns)


class Joining(nn.Module):
    """Removes the overlap of crops, before the abstractor."""

    joins_patches = True

    def __init__(self, plan: Any, facts: EncoderFacts) -> None:
        super().__init__()
        self.plan, self.facts = plan, facts  # the plan is a preprocessing with `crops` and `margin`
        self.grid = facts.grid(facts.image_size, facts.image_size)  # of each tile

    def forward(self, tiles: Tensor, *, width: int, height: int) -> list[tuple[Tensor, Grid]]:
        """Return the whole image and the large copy, with their grids: (n, N, C) -> (N, C) and (R K, C)."""
        large = self.stitched(tiles, width, height)
        return [(tiles[0], self.grid), (large.flatten(0, 1), Grid(large.shape[0], large.shape[1]))]

    def stitched(self, tiles: Tensor, width: int, height: int) -> Tensor:
        """Return the patches of the crops as one picture, without their overlap: (n, N, C) -> (R, K, C)."""
        rows, columns = self.plan.crops(width, height, self.facts)
        crops = tiles[1:].unflatten(1, (self.grid.rows, self.grid.columns))
        return stitch(crops, rows, columns, self.plan.margin)
