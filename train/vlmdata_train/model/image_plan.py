"""Plan an image without weights: its tiles, and its number of image tokens in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


@dataclass(frozen=True)
class Prepared:
    """One preprocessed image."""

    pixels: Sequence[Tensor]  # a tensor (tiles, 3, H, W) uint8, or a list of (3, H, W) whose sizes may differ
    tokens: int  # number of image tokens in the prompt
    size: tuple[int, int]  # original height and width


@dataclass(frozen=True)
class ImagePlan:
    """The parts of a model that determine how many tiles and tokens an image becomes.

    A plan is small and picklable, because the loader's workers plan and preprocess with a copy.
    """

    facts: EncoderFacts
    preprocessing: Any
    abstractor: Any
    fusion: Any

    def grid_of(self, height: int, width: int) -> Grid:
        """Return the grid of tokens that the abstractor makes from one tile of this size."""
        return self.abstractor.grid_of(self.facts.grid(height, width))

    def features_of(self, width: int, height: int) -> int:
        """Return how many features an image of this size has, including added features such as newlines."""
        return self.preprocessing.tokens_of(width, height, self.facts, self.grid_of)

    def tokens_of(self, width: int, height: int) -> int:
        """Return the number of image tokens in the prompt for an image of this size.

        The number is exact, because packing depends on it.
        """
        return self.fusion.positions_of(self.features_of(width, height))

    def preprocess(self, image: np.ndarray) -> Prepared:
        """Return an image, uint8 (H, W, 3), as tiles. Raises ValueError for a different shape or dtype."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image must be uint8 (height, width, 3), not {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        pixels = self.preprocessing.prepare(image, self.facts)
        return Prepared(pixels, self.tokens_of(width, height), (height, width))
