"""What is known of an image tower without its weights: sizes, colours, and the grid of its tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """Tokens as they lie over an image or tile; `extra` come before them and belong to no place (a class token)."""

    rows: int
    columns: int
    extra: int = 0

    @property
    def tokens(self) -> int:
        """How many there are in all."""
        return self.rows * self.columns + self.extra


@dataclass(frozen=True)
class EncoderFacts:
    """What plans need to know of an image tower; sizes in pixels, mean and deviation of channels in [0, 1]."""

    width: int  # of a feature
    image_size: int
    patch_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    extra: int = 0  # class and register tokens that are given out too
    levels: int = 0  # deeper layers for the language model's first ones: their features lie beside the last one's

    def grid(self, height: int, width: int) -> Grid:
        """Return the patches of an image of this size."""
        return Grid(height // self.patch_size, width // self.patch_size, self.extra)
