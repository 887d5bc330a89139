"""Preprocessing turns an image into tiles for the tower. A preprocessing part has these methods:

- `prepare(image, facts)` returns the tiles: uint8 (H, W, 3) -> uint8 (tiles, 3, side, side), or a list of (3, H, W) whose sizes
  may differ,
- `tiles_of(width, height, facts)` returns the number of tiles,
- `regions(width, height, facts, grid_of)` returns the regions of the image (`Region` in `model/encoder_facts.py`), in the order
  of its features for the language model. `grid_of(height, width)` returns the grid of one tile after the abstractor,
- `frame(width, height, facts)` returns where the image lies in the picture that the model gets (`Frame` in
  `vlmdata/grounding/frame.py`), so that texts can name places in it. Only samples with boxes need this method,
- `build(facts, grid_of, width)` returns None, or the module that arranges the features of an image's tiles (tiles, M, D) as one
  sequence: `forward(tiles, width=, height=)` -> (tokens, D).
  A module with the attribute `joins_patches = True` runs before the abstractor, with the patches (tiles, N, C), and
  `forward` returns the pictures that the abstractor gets: a list of (patches (N, C), their `Grid`). The features of the
  pictures follow each other. `grid_of` takes the size of a picture in pixels,
- `joined_facts(facts)` returns the facts of joined patches. Only a part whose module changes their width needs this method,
- `tile_grid(width, height, facts)` returns the (rows, columns) of the tiles. Only a tower that reads all tiles of an image at
  once needs this method,
- `for_several()` returns the part that prepares the images of a sample with more than one image. Only a part that prepares such
  images in another way needs this method. The module that `build` returns arranges the tiles of both parts.

A part with the attribute `for_each_tower = True` makes a tile for each tower of `facts.towers`, in their order, in place of
every tile. Its regions are those of one tower.

N is the number of patches, M the number of tokens of a tile, C the tower's width, D the width. The numbers of tiles and
features depend only on sizes, so that the loader's workers can plan without weights.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from vlmdata_train.model.encoder_facts import EncoderFacts, Grid, Region


class OneTile:
    """Base class of parts that turn every image into one tile of the tower's size."""

    def tiles_of(self, width: int, height: int, facts: EncoderFacts) -> int:
        """Return the number of tiles, which is 1 for any size."""
        return 1

    def regions(self, width: int, height: int, facts: EncoderFacts, grid_of: Callable[[int, int], Grid]) -> list[Region]:
        """Return one region, which is the same for any size."""
        return [Region(grid_of(facts.image_size, facts.image_size))]

    def build(self, facts: EncoderFacts, grid_of: Callable[[int, int], Grid], width: int) -> nn.Module | None:
        """Return None, because one tile needs no arrangement."""
        return None
