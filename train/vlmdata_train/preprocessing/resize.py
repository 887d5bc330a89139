"""The whole image pressed to the tower's square: Flamingo, BLIP-2, PaliGemma, SigLIP's own preparation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from vlmdata_train.encoders import EncoderFacts, Grid
from vlmdata_train.pixels import Resample, resize, to_tiles


@dataclass(frozen=True)
class Resize:
    """One square tile; nothing is lost but the aspect ratio."""

    resample: Resample = "bicubic"

    def prepare(self, image: np.ndarray, facts: EncoderFacts) -> Tensor:
        """uint8 (H, W, 3) -> uint8 (1, 3, side, side)."""
        return to_tiles([resize(image, facts.image_size, facts.image_size, self.resample)])

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return 1, whatever the size."""
        return 1

    def tokens_of(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> int:
        """Return the features of one tile, whatever the image's size."""
        return grid_of(facts.image_size, facts.image_size).tokens

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None: one tile needs no arrangement."""
        return None
