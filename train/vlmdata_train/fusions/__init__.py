"""How the language model gets to see images. A part answers

- `positions_of(tokens)`: how many text positions an image of that many features takes,
- `reads(tower_width, language_width)`: the width of the features that it wants,
- `build(language, width, image_token_id)`: the module, for features of that width:
  `forward(ids, embeddings, features, counts, segment_ids, packing)` -> embeddings (B, T, D), with features (V, width) of all
  images in reading order and `counts` the features of each image. What layers need later it leaves in `packing.images`.
  `prefix_of(labels, segment_ids)` of the module: None, or which tokens (B, T) their whole sample may see.
"""
