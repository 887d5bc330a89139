"""The image is resized, then padded to a square with the mean colour, as in DeepSeek-VL. Each tower gets a tile in its size.

Source: Lu et al. 2024, DeepSeek-VL. LLaVA's `pad` pads before it resizes, which gives other pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.pixels import Resample, mean_colour, pad, resize, to_tiles
from vlmdata_train.preprocessing import OneTile


@dataclass(frozen=True)
class ResizePad(OneTile):
    """Turns an image into one square tile with the image in the middle, or with several towers into a tile for each tower.

    The tile of the second tower is made from the tile of the first, and so on, so the first tower should have the largest.
    """

    for_each_tower: ClassVar[bool] = True
    shortest: int = 14  # least length of the shorter side after resizing; the value of DeepSeek-VL's processor
    resample: Resample = "bicubic"  # as in DeepSeek-VL

    def __post_init__(self) -> None:
        if self.shortest < 1:
            raise ValueError(f"shortest must be 1 or more, not {self.shortest}")

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor | list[Tensor]:
        """Return the tile, uint8 (H, W, 3) -> uint8 (1, 3, side, side), or a list of a tile (3, side, side) for each tower."""
        tiles = []
        for tower in facts.towers or (facts,):
            image = self._square(image, tower)
            tiles.append(to_tiles([image]))
        return [tile[0] for tile in tiles] if facts.towers else tiles[0]

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of a square with the image in the middle. Tiles of further towers show the same square."""
        tower = (facts.towers or (facts,))[0]
        rows, columns = self._inner(width, height, tower.image_size)
        left, top = (tower.image_size - columns) // 2, (tower.image_size - rows) // 2
        return Frame.placed(tower.image_size, tower.image_size, (columns, rows), left=left, top=top)

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles, which is the number of towers for any size."""
        return len(facts.towers) or 1

    def _square(self, image: np.ndarray, facts: EncoderFacts) -> np.ndarray:
        """Return an image, uint8 (H, W, 3), as a square of the tower's size. Raises ValueError if `shortest` is larger."""
        side = facts.image_size
        if self.shortest > side:
            raise ValueError(f"shortest must be at most the side of a tile, {side} px, but it is {self.shortest}")
        height, width = self._inner(image.shape[1], image.shape[0], side)
        top, left = (side - height) // 2, (side - width) // 2
        image = resize(image, height, width, self.resample)
        return pad(image, side, side, top=top, left=left, colour=mean_colour(facts.mean))

    def _inner(self, width: int, height: int, side: int) -> tuple[int, int]:
        """Return the (height, width) of the image in a square, in pixels."""
        scale = side / max(width, height)
        return max(round(height * scale), self.shortest), max(round(width * scale), self.shortest)
