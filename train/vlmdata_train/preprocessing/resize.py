"""The whole image is resized to the tower's square, as in Flamingo, BLIP-2, PaliGemma and SigLIP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.pixels import Resample, resize, to_tiles
from vlmdata_train.preprocessing import OneTile


@dataclass(frozen=True)
class Resize(OneTile):
    """Turns an image into one square tile of the whole image. The aspect ratio is lost."""

    resample: Resample = "bicubic"

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """Return the tile: uint8 (H, W, 3) -> uint8 (1, 3, side, side)."""
        return to_tiles([resize(image, facts.image_size, facts.image_size, self.resample)])

    def frame(self, width: int, height: int, facts: EncoderFacts) -> Frame:
        """Return the frame of a square that the whole image fills."""
        return Frame(facts.image_size, facts.image_size)
