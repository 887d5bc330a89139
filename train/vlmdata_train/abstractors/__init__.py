"""Abstractors turn a tower's features into the input of the language model.

An abstractor has two methods:

- `grid_of(grid)` returns the grid of tokens that the abstractor makes from a tile's grid of patches.
- `build(facts, out_width, grid)` returns the module for a tower with these facts: (P, N, C) -> (P, M, D).

`grid` is the grid of a tile of the tower's size. A module with the attribute `takes_grid = True` also accepts tiles of other
sizes: the model calls it with the keyword `grid`, the grid of the tiles of this call.

A part that reads the question of the sample also has a method `question_ids(tokenizer, text)`, which returns the ids of a
question, and its `build` gets the keyword `text`, the `TextFacts` of the language model. A part with its own tokenizer has a
parameter `tokenizer` and a method `question_tokenizer()`, which returns the tokenizer or None. Checkpoints keep this tokenizer.

A module with the attribute `reads_surroundings = True` is called with all tiles of a batch, a list of (N, C), and their
`Surroundings`. It returns a list of (M, D): one entry for each image or video, or, with `returns_tiles = True`, one for each
tile. The model then arranges tiles and frames as it does for other abstractors.

P tiles, N patches, M tokens, C width of the tower, D `out_width`. `Grid` and `EncoderFacts` are in `model/encoder_facts.py`,
`Surroundings` and `TextFacts` in `model/surroundings.py`. An abstractor raises ValueError for settings or a grid that it cannot
use.
"""
