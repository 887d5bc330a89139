"""What becomes of an image, known without weights: its tiles, and how many text positions it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


@dataclass(frozen=True)
class Prepared:
    """One image, ready for the tower."""

    pixels: Tensor  # (tiles, 3, side, side) uint8
    tokens: int  # text positions that it takes
    size: tuple[int, int]  # height and width before


@dataclass(frozen=True)
class ImagePlan:
    """The parts that decide sizes. Small and picklable: a loader's processes plan and prepare with a copy of it."""

    facts: EncoderFacts
    preprocessing: Any
    abstractor: Any
    fusion: Any

    def grid_of(self, height: int, width: int) -> Grid:
        """Return the tokens that the abstractor leaves of one tile of this size."""
        return self.abstractor.grid_of(self.facts.grid(height, width))

    def features_of(self, width: int, height: int) -> int:
        """Return how many features an image of this size gives, newlines and the like included."""
        return self.preprocessing.tokens_of(width, height, self.facts, self.grid_of)

    def tokens_of(self, width: int, height: int) -> int:
        """Return how many text positions an image of this size takes: exactly, for packing is planned with it."""
        return self.fusion.positions_of(self.features_of(width, height))

    def preprocess(self, image: np.ndarray) -> Prepared:
        """uint8 (H, W, 3) -> tiles and what they will take."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image is uint8 (height, width, 3), not {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        pixels = self.preprocessing.prepare(image, self.facts)
        return Prepared(pixels, self.tokens_of(width, height), (height, width))
