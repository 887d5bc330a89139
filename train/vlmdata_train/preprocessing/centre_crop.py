"""The short side is resized to the tower's size, then the middle square is cut out, as in CLIP and LLaVA 1.0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

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
        short, long = min(height, width), max(height, width)
        longer = int(side * long / short)  # rounded down, as in CLIP's image processor
        image = resize(image, *((side, longer) if height <= width else (longer, side)), self.resample)
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        return to_tiles([image[top : top + side, left : left + side]])
