"""Abstractors turn a tower's features into the language model's input. Methods of a part:

- `grid_of(grid)` returns the grid of a tile after it,
- `build(facts, out_width, grid)` returns the module for a tower with these facts: (P, N, C) -> (P, M, D).
"""
