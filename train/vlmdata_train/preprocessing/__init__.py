"""From an image to the tiles that the tower sees. A part answers

- `prepare(image, facts)`: uint8 (H, W, 3) -> uint8 (tiles, 3, side, side),
- `tiles_of(width, height, facts)`: how many tiles that gives,
- `tokens_of(width, height, facts, grid_of)`: how many features the image is in the end; `grid_of(height, width)` is the
  grid of one tile after the abstractor,
- `build(facts, grid_of, width)`: None, or the module that arranges an image's tiles (tiles, M, D) as one sequence:
  `forward(tiles, width=, height=)` -> (tokens, D).

All are pure functions of sizes, so that a loader plans with them in processes that hold no weights.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid


class OneTile:
    """The answers of a part that makes of every image one tile of the tower's size."""

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return 1, whatever the size."""
        return 1

    def tokens_of(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> int:
        """Return the features of one tile, whatever the image's size."""
        return grid_of(facts.image_size, facts.image_size).tokens

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None: one tile needs no arrangement."""
        return None
