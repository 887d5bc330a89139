"""Facts of an image tower that are known without its weights: sizes, normalisation, and the grid of its tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """The grid of tokens over an image or a tile.

    `extra` tokens, such as a class token, have no place in the grid and precede the other tokens.
    """

    rows: int
    columns: int
    extra: int = 0

    @property
    def tokens(self) -> int:
        """Number of all tokens, including the extra tokens."""
        return self.rows * self.columns + self.extra


@dataclass(frozen=True)
class Region:
    """A part of an image whose features follow each other: a tile, or the whole image.

    The regions of an image are in the order of its features.
    """

    grid: Grid
    row: int = 0  # place among the tiles
    column: int = 0
    is_overview: bool = False  # shows the whole image, although the image also has tiles
    added: int = 0  # features that the preprocessing's module adds, such as a newline after each row

    @property
    def tokens(self) -> int:
        """Number of features, including the added features."""
        return self.grid.tokens + self.added


@dataclass(frozen=True)
class EncoderFacts:
    """Facts of an image tower. Sizes are in pixels. `mean` and `std` are for channels in [0, 1]."""

    width: int  # length of a feature vector
    image_size: int
    patch_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    extra: int = 0  # number of class and register tokens that the tower also returns
    levels: int = 0  # number of earlier layers, whose features follow the features of the last layer in each vector
    frames_per_tile: int = 1  # consecutive frames that a tile of a video may hold: the tower's temporal patch size
    tile_grids: tuple[tuple[int, int], ...] = ()  # (rows, columns) of tiles, if the tower reads all tiles of an image at once
    side: int = 0  # rows and columns of every grid, if they do not depend on the size of a tile
    rounds_up: bool = False  # also count a patch that is only partly in the image, as towers of convolutions do
    towers: tuple[EncoderFacts, ...] = ()  # facts of each tower, if several towers' features are concatenated

    def grid(self, height: int, width: int) -> Grid:
        """Return the grid of patches of an image with this size in pixels."""
        if self.side:
            return Grid(self.side, self.side, self.extra)
        if self.rounds_up:
            return Grid(-(-height // self.patch_size), -(-width // self.patch_size), self.extra)
        return Grid(height // self.patch_size, width // self.patch_size, self.extra)
