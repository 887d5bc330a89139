"""From features to what the language model reads. A part answers `grid_of(grid)`, the grid that it leaves of a tile,
and `build(facts, out_width, grid)`, the module for a tower with these facts: (P, N, C) -> (P, M, D)."""
