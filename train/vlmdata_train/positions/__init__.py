"""Where tokens stand. A part answers

- `position_ids(batch, plan, image_token_id)`: what the language model takes as positions, (B, T) or one such row for each axis,
- `after(positions, lengths)`: the position (B,) of the first token generated in each row,
- `prepare(language)`: what must change in the language model so that it reads such positions.
"""
