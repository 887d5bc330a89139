"""From features to what the language model reads. A part answers `grid_of(grid)`, the grid that it leaves of a tile,
and `build(in_width, out_width, grid)`, the module: (P, N, C) -> (P, M, D)."""
