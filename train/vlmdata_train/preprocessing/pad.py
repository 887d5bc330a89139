"""The image is padded to a square with the mean colour, then resized, as in LLaVA 1.5.

This keeps the aspect ratio and the edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.pixels import Resample, mean_colour, pad, resize, to_tiles
from vlmdata_train.preprocessing import OneTile


@dataclass(frozen=True)
class Pad(OneTile):
    """Turns an image into one square tile with the image in the middle."""

    resample: Resample = "bicubic"

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the tile: uint8 (H, W, 3) -> uint8 (1, 3, side, side)."""
        height, width = image.shape[:2]
        long = max(height, width)
        top, left = (long - height) // 2, (long - width) // 2
        square = pad(image, long, long, top=top, left=left, colour=mean_colour(facts.mean))
        return to_tiles([resize(square, facts.image_size, facts.image_size, self.resample)])

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of a square with the image in the middle."""
        long = max(width, height)
        side = facts.image_size
        scale = side / long
        left, top = (long - width) // 2 * scale, (long - height) // 2 * scale
        return Frame.placed(side, side, (width * scale, height * scale), left=left, top=top)
