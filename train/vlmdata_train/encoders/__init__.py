"""Image towers. Each one is a part of a model with these methods:

- `facts()` returns its `EncoderFacts`, without loading weights.
- `build()` returns the module, which maps normalised pixels (P, 3, H, W) to features (P, N, C). N is the number of patches, in
  reading order, and C is the width in the facts. If the facts have `tile_grids`, the tower reads all tiles of an image at once:
  `forward(pixels, grids)` also gets the (rows, columns) of tiles of each image. If the facts have `towers` and the
  preprocessing makes a tile for each tower, `pixels` is a list of the pixels for each tower.
"""
