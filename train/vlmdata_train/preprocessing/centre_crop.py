"""The short side is resized to the tower's size, then the middle square is cut out, as in CLIP and LLaVA 1.0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.pixels import Resample, resize, to_tiles
from vlmdata_train.preprocessing import OneTile


@dataclass(frozen=True)
class CentreCrop(OneTile):
    """Turns an image into one square tile. The parts outside the middle square are lost."""

    resample: Resample = "bicubic"  # as in CLIP

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the tile: uint8 (H, W, 3) -> uint8 (1, 3, side, side)."""
        height, width = image.shape[:2]
        side = facts.image_size
        image = resize(image, *_scaled(width, height, side), self.resample)
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        return to_tiles([image[top : top + side, left : left + side]])

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of the middle square, which cuts off the rest of the image."""
        side = facts.image_size
        rows, columns = _scaled(width, height, side)
        return Frame.placed(side, side, (columns, rows), left=-((columns - side) // 2), top=-((rows - side) // 2))


def _scaled(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the (height, width) of the image whose short side is that of a tile."""
    longer = int(side * max(height, width) / min(height, width))  # rounded down, as in CLIP's image processor
    return (side, longer) if height <= width else (longer, side)
