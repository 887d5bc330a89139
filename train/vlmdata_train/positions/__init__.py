"""Positions of tokens. Each file holds a part of a model with these methods:

- `position_ids(batch, image_token_id)` returns the language model's position ids, (B, T) or (axes, B, T),
- `after(positions, lengths)` returns the position (B,) of the first token generated in each row, after prompts of
  `lengths` (B,) tokens,
- `prepare(language)` changes the language model so that it accepts such positions.
"""
