"""Abstractors turn a tower's features into the input of the language model.

An abstractor has two methods:

- `grid_of(grid)` returns the grid of tokens that the abstractor makes from a tile's grid of patches.
- `build(facts, out_width, grid)` returns the module for a tower with these facts: (P, N, C) -> (P, M, D).

`grid` is the grid of a tile of the tower's size. A module with the attribute `takes_grid = True` also accepts tiles of other
sizes: the model calls it with the keyword `grid`, the grid of the tiles of this call.

P tiles, N patches, M tokens, C width of the tower, D `out_width`. `Grid` and `EncoderFacts` are in `model/encoder_facts.py`. An
abstractor raises ValueError for settings or a grid that it cannot use.
"""
