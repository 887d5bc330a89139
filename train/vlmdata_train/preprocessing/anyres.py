"""LLaVA-NeXT's AnyRes: a small copy of the whole image, then a large copy in tiles.

Tokens of padding are left out of the large copy, and a newline follows each row of its tokens.
Liu et al. 2024, LLaVA-NeXT; `max_tiles` and `several` are from LLaVA-OneVision (Li et al. 2024).
n tiles, M tokens of a tile, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.pixels import Resample, pad, resize, to_tiles
from vlmdata_train.preprocessing.pad import Pad


def select_best_resolution(width: int, height: int, canvases: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the (height, width) in `canvases` that keeps the most pixels of the image.

    Among several such canvases, return the one with the least padding.
    """

    def merit(canvas: tuple[int, int]) -> tuple[int, int]:
        rows, columns = canvas
        scale = min(columns / width, rows / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - rows * columns

    return max(canvases, key=merit)  # the first, if several canvases have the same merit


def fitted(width: int, height: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of the image scaled to fit a canvas. The side that does not fill the canvas is rounded up."""
    rows, columns = canvas
    if columns / width < rows / height:
        return min(math.ceil(height * (columns / width)), rows), columns
    return rows, min(math.ceil(width * (rows / height)), columns)


def unpadded(width: int, height: int, rows: int, columns: int) -> tuple[slice, slice]:
    """Return the slices of rows and of columns whose tokens show the image, not padding. Opposite edges are cut equally."""
    if width / height > columns / rows:
        cut = (rows - int(round(height * (columns / width), 7))) // 2  # rounded first, because int() of 13.9999999 loses a row
        return slice(cut, rows - cut), slice(0, columns)
    cut = (columns - int(round(width * (rows / height), 7))) // 2
    return slice(0, rows), slice(cut, columns - cut)


@dataclass(frozen=True)
class Anyres:
    """Turns an image into a base tile, which shows the whole image, and the tiles of one of the grids in `tiles`.

    The padding is black, as in LLaVA-NeXT. Without grids (`tiles: []`) an image is one tile, padded to a square with the mean
    colour, and a newline follows its tokens.
    """

    tiles: tuple[tuple[int, int], ...] = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # (rows, columns), as in LLaVA-NeXT
    max_tiles: int | None = None  # tokens of more tiles than this are scaled down; LLaVA-OneVision: 9
    several: Literal["tiles", "pad"] = "tiles"  # `pad`: one padded tile for each image of several; LLaVA-OneVision
    resample: Resample = "bicubic"

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the base tile, then the others row by row: uint8 (H, W, 3) -> uint8 (1 + rows * columns, 3, side, side)."""
        if not self.tiles:
            return Pad(self.resample).prepare(image, facts)
        height, width = image.shape[:2]
        side = facts.image_size
        canvas = self._canvas(width, height, side)
        rows, columns = fitted(width, height, canvas)
        large = resize(image, rows, columns, self.resample)
        large = pad(large, *canvas, top=(canvas[0] - rows) // 2, left=(canvas[1] - columns) // 2, colour=(0, 0, 0))
        cuts = [(y, x) for y in range(0, canvas[0], side) for x in range(0, canvas[1], side)]
        return to_tiles([
            resize(image, side, side, self.resample), *(large[y : y + side, x : x + side] for y, x in cuts)
        ])  # fmt: skip

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the image without padding, because the model gets no tokens of the padding.

        Its size is that of the large copy. Without grids the picture is the padded tile.
        """
        if not self.tiles:
            return Pad(self.resample).frame(width, height, facts)
        rows, columns = fitted(width, height, self._canvas(width, height, facts.image_size))
        return Frame(columns, rows)

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles of an image, including the base tile."""
        if not self.tiles:
            return 1
        rows, columns = self._canvas(width, height, facts.image_size)
        return 1 + (rows // facts.image_size) * (columns // facts.image_size)

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return the base tile and the large copy.

        A newline follows each row of the large copy. `kept` returns the rows and columns without the newlines.
        """
        tile = grid_of(facts.image_size, facts.image_size)
        if not self.tiles:
            return [Region(tile, added=1)]
        rows, columns = self.kept(width, height, facts.image_size, tile)
        return [Region(tile, is_overview=True), Region(Grid(rows, columns), added=rows)]

    def for_several(self) -> Anyres:
        """Return the part for the images of a sample with more than one image."""
        return replace(self, tiles=()) if self.several == "pad" else self

    def kept(self, width: int, height: int, side: int, tile: Grid) -> tuple[int, int]:
        """Return the (rows, columns) of the tokens that are kept of the large copy, the image that the other tiles show.

        Tokens of padding are cut off. If clearly more tokens remain than `max_tiles` tiles have, they are scaled down.
        """
        canvas = self._canvas(width, height, side)
        all_rows, all_columns = canvas[0] // side * tile.rows, canvas[1] // side * tile.columns
        across, along = unpadded(width, height, all_rows, all_columns)
        rows, columns = len(range(*across.indices(all_rows))), len(range(*along.indices(all_columns)))
        if self.max_tiles is not None:
            ratio = math.sqrt(rows * columns / (self.max_tiles * tile.rows**2))
            if ratio > 1.1:
                rows, columns = int(rows // ratio), int(columns // ratio)
        return rows, columns

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return the module that arranges the tiles. Its newline vector is trained with the abstractor.

        Raises ValueError for tiles with a class token.
        """
        tile = grid_of(facts.image_size, facts.image_size)
        if tile.extra:
            raise ValueError("anyres cannot use a class token or latents, because they have no place in a row of tokens")
        return Arrangement(self, facts.image_size, tile, width)

    def _canvas(self, width: int, height: int, side: int) -> tuple[int, int]:
        return select_best_resolution(width, height, [(rows * side, columns * side) for rows, columns in self.tiles])


class Arrangement(nn.Module):
    """Arranges the tiles of one image, (n, M, D), as one sequence, (tokens, D)."""

    def __init__(self, plan: Anyres, side: int, tile: Grid, width: int) -> None:
        super().__init__()
        self.plan, self.side, self.tile = plan, side, tile
        self.newline = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def forward(self, tiles: Tensor, *, width: int, height: int) -> Tensor:
        """Return the base tile, then the other tiles as one unpadded picture with the newline vector after each row.

        A tile without other tiles is followed by one newline vector.
        """
        if len(tiles) == 1:
            return torch.cat([tiles[0], self.newline.to(tiles.dtype)[None]])
        canvas = self.plan._canvas(width, height, self.side)
        down, across = canvas[0] // self.side, canvas[1] // self.side
        picture = tiles[1:].unflatten(0, (down, across)).unflatten(2, (self.tile.rows, self.tile.columns))
        picture = picture.transpose(1, 2).flatten(2, 3).flatten(0, 1)  # (rows, columns, D)
        picture = picture[unpadded(width, height, *picture.shape[:2])]
        rows, columns = self.plan.kept(width, height, self.side, self.tile)
        if (rows, columns) != tuple(picture.shape[:2]):
            scaled = functional.interpolate(picture.permute(2, 0, 1)[None], (rows, columns), mode="bilinear")
            picture = scaled[0].permute(1, 2, 0)
        newline = self.newline.to(picture.dtype).expand(rows, 1, -1)
        return torch.cat([tiles[0], torch.cat([picture, newline], 1).flatten(0, 1)])
