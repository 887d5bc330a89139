"""Fusions bring image features into the language model. Methods of a part:

- `positions_of(tokens)` returns how many tokens of the text an image of this many features takes,
- `reads(facts, language_width)` returns the width of the features that it needs, for a tower with these facts,
- `build(language, width, image_token_id)` returns the module for features of this width. Its
  `forward(ids, embeddings, features, counts, segment_ids, packing)` returns embeddings (B, T, D), from features (V, width) of
  all images in reading order and `counts`, the number of features of each image. It stores in `packing.images` what layers
  need later. Its `prefix_of(labels, segment_ids)` returns None, or which tokens (B, T) their whole sample may see.
"""

from __future__ import annotations

from vlmdata_train.model.encoder_facts import EncoderFacts


def embedding_width(facts: EncoderFacts, language_width: int) -> int:
    """Return the language model's width. Raises ValueError for a tower with deeper levels, which do not fit an embedding."""
    if facts.levels:
        raise ValueError(
            f"fusion: the tower returns features of {facts.levels} deeper layers: use the fusion `deep_tokens` for them"
        )
    return language_width
