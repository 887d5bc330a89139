"""Preprocessing turns an image into tiles for the tower. A preprocessing part has these methods:

- `prepare(image, facts)` returns the tiles: uint8 (H, W, 3) -> uint8 (tiles, 3, side, side), or a list of (3, H, W) whose sizes
  may differ,
- `tiles_of(width, height, facts)` returns the number of tiles,
- `tokens_of(width, height, facts, grid_of)` returns the number of features of the image for the language model.
  `grid_of(height, width)` returns the grid of one tile after the abstractor,
- `build(facts, grid_of, width)` returns None, or the module that arranges the features of an image's tiles (tiles, M, D) as one
  sequence: `forward(tiles, width=, height=)` -> (tokens, D).

M is the number of tokens of a tile, D the width. The numbers of tiles and features depend only on sizes, so that the
loader's workers can plan without weights.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class OneTile:
    """Base class of parts that turn every image into one tile of the tower's size."""

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles, which is 1 for any size."""
        return 1

    def tokens_of(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> int:
        """Return the number of features of one tile, for any size."""
        return grid_of(facts.image_size, facts.image_size).tokens

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None, because one tile needs no arrangement."""
        return None
