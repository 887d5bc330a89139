"""From an image to the tiles that the tower sees. A part answers

- `prepare(image, facts)`: uint8 (H, W, 3) -> uint8 (tiles, 3, side, side),
- `tiles_of(width, height, facts)`: how many tiles that gives,
- `tokens_of(width, height, facts, grid_of)`: how many features the image is in the end; `grid_of(height, width)` is the
  grid of one tile after the abstractor,
- `build(facts, grid_of, width)`: None, or the module that arranges an image's tiles (tiles, M, D) as one sequence:
  `forward(tiles, width=, height=)` -> (tokens, D).

All are pure functions of sizes, so that a loader plans with them in processes that hold no weights.
"""
