"""Phi-3-Vision's crops: a large copy of the image in square tiles, then a small copy, with learned vectors between them.

The image is enlarged to as many columns of tiles as `max_crops` allows, and padded with white to whole tiles. The small copy
shows the padded picture.

Source: Abdin et al. 2024, Phi-3 Technical Report; Dong et al. 2024, InternLM-XComposer2-4KHD.

n tiles, r x c tokens of a tile, M = r c, R x K tiles of the large copy, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region
from vlmdata_train.model.pixels import Resample, pad, resize, resize_sharply, to_tiles

WHITE = (255, 255, 255)


def most_columns(ratio: float, max_crops: int) -> int:
    """Return the largest number of columns for which an image with this ratio (width / height >= 1) has enough tiles."""
    columns = 1
    while (columns + 1) * math.ceil((columns + 1) / ratio) <= max_crops:
        columns += 1
    return columns


@dataclass(frozen=True)
class HdCrops:
    """Turns an image into a tile of the whole picture and the tiles of a large copy.

    Phi-3-Vision and Phi-3.5-Vision have the tower CLIP ViT-L/14-336 and the abstractor `pixel_shuffle: {factor: 2, layers: 2}`.
    Their processors interpolate the tile of the whole picture after normalisation and do not limit its values to 0...255.
    """

    max_crops: int = 16  # maximum number of tiles of the large copy; Phi-3-Vision: 16, Phi-3.5-Vision: 4
    resample: Resample = "bilinear"  # as in Phi-3-Vision

    def __post_init__(self) -> None:
        if self.max_crops < 1:
            raise ValueError(f"max_crops must be 1 or more, not {self.max_crops}")

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the whole picture, then its tiles row by row: uint8 (H, W, 3) -> uint8 (1 + R K, 3, side, side)."""
        height, width = image.shape[:2]
        side = facts.image_size
        if width < height:  # the published code works on the transposed image, and the order of the two axes changes pixels
            large = self._large(image.transpose(1, 0, 2), side).transpose(1, 0, 2)
        else:
            large = self._large(image, side)
        corners = [(y, x) for y in range(0, large.shape[0], side) for x in range(0, large.shape[1], side)]
        tiles = [large[y : y + side, x : x + side] for y, x in corners]
        return to_tiles([resize_sharply(large, side, side, "bicubic"), *tiles])

    def crops(self, width: int, height: int, side: int) -> tuple[int, int]:
        """Return the (rows, columns) of the tiles of the large copy. `side` is that of a tile in pixels."""
        long = most_columns(max(width, height) / min(width, height), self.max_crops)
        short = math.ceil(self._short_side(width, height, side) / side)
        return (short, long) if width >= height else (long, short)

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the padded picture, which the tiles and the tile of the whole picture show."""
        side = facts.image_size
        rows, columns = (count * side for count in self.crops(width, height, side))
        short = self._short_side(width, height, side)
        inner = (columns, short) if width >= height else (short, rows)
        return Frame.placed(columns, rows, inner, left=(columns - inner[0]) // 2, top=(rows - inner[1]) // 2)

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles of an image, including the tile of the whole picture."""
        rows, columns = self.crops(width, height, facts.image_size)
        return 1 + rows * columns

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return the large copy, which a separator follows, then the whole picture. A row end follows each row of both."""
        rows, columns = self.crops(width, height, facts.image_size)
        tile = grid_of(facts.image_size, facts.image_size)
        large = Grid(rows * tile.rows, columns * tile.columns)
        return [Region(large, added=large.rows + 1), Region(tile, is_overview=True, added=tile.rows)]

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return the module that arranges the tiles. Its two vectors are trained with the abstractor.

        Raises ValueError for tiles with a class token.
        """
        tile = grid_of(facts.image_size, facts.image_size)
        if tile.extra:
            raise ValueError("hd_crops cannot use a class token or latents, because they have no place in a row of tokens")
        return Arrangement(self, facts.image_size, tile, width)

    def _large(self, image: np.ndarray, side: int) -> np.ndarray:
        """Return the large copy of an image that is at least as wide as high, with white above and below."""
        height, width = image.shape[:2]
        rows, columns = self.crops(width, height, side)
        inner = self._short_side(width, height, side)
        sized = resize(image, inner, columns * side, self.resample)
        return pad(sized, rows * side, columns * side, top=(rows * side - inner) // 2, left=0, colour=WHITE)

    def _short_side(self, width: int, height: int, side: int) -> int:
        """Return the shorter side of the large copy without padding, in pixels."""
        ratio = max(width, height) / min(width, height)
        return max(int(most_columns(ratio, self.max_crops) * side / ratio), 1)


class Arrangement(nn.Module):
    """Arranges the tiles of one image, (n, M, D), as one sequence, (tokens, D).

    The vectors of Phi-3-Vision, sub_GN and glb_GN, precede its MLP. Here they follow the abstractor: to convert a checkpoint,
    apply the MLP to them.
    """

    def __init__(self, plan: HdCrops, side: int, tile: Grid, width: int) -> None:
        super().__init__()
        self.plan, self.side, self.tile = plan, side, tile
        self.row_end, self.separator = (nn.Parameter(torch.randn(width) / math.sqrt(width)) for _ in range(2))

    def forward(self, tiles: Tensor, *, width: int, height: int) -> Tensor:
        """Return the large copy, the separator, and the whole picture, with the row end after each row of both."""
        rows, columns = self.plan.crops(width, height, self.side)
        whole, *others = tiles.unflatten(1, (self.tile.rows, self.tile.columns))  # (r, c, D) each
        lines = [torch.cat(others[row * columns : (row + 1) * columns], 1) for row in range(rows)]
        separator = self.separator.to(tiles.dtype)[None]
        return torch.cat([self._with_ends(torch.cat(lines)), separator, self._with_ends(whole)])

    def _with_ends(self, picture: Tensor) -> Tensor:
        """Return a picture row by row, with the row end after each row: (r, c, D) -> (r (c + 1), D)."""
        ends = self.row_end.to(picture.dtype).expand(picture.shape[0], 1, -1)
        return torch.cat([picture, ends], 1).flatten(0, 1)
