"""Facts of an image tower that need no weights: sizes, normalisation, and the grid of its tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """The grid of tokens over an image or tile; `extra` tokens without a place (a class token) come before them."""

    rows: int
    columns: int
    extra: int = 0

    @property
    def tokens(self) -> int:
        """Number of all tokens."""
        return self.rows * self.columns + self.extra


@dataclass(frozen=True)
class EncoderFacts:
    """Facts of an image tower for planning. Sizes are in pixels, `mean` and `std` are of channels in [0, 1]."""

    width: int  # of a feature
    image_size: int
    patch_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    extra: int = 0  # class and register tokens that the tower returns too
    levels: int = 0  # further tower layers, for the language model's first ones; features are concatenated to the last layer's

    def grid(self, height: int, width: int) -> Grid:
        """Return the grid of patches of an image of this size."""
        return Grid(height // self.patch_size, width // self.patch_size, self.extra)
