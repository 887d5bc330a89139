"""How the language model gets to see images. A part answers

- `positions_of(tokens)`: how many text positions an image of that many features takes,
- `reads(facts, language_width)`: the width of the features that it wants, of a tower with these facts,
- `build(language, width, image_token_id)`: the module, for features of that width:
  `forward(ids, embeddings, features, counts, segment_ids, packing)` -> embeddings (B, T, D), with features (V, width) of all
  images in reading order and `counts` the features of each image. What layers need later it leaves in `packing.images`.
  `prefix_of(labels, segment_ids)` of the module: None, or which tokens (B, T) their whole sample may see.
"""

from __future__ import annotations

from vlmdata_train.model.encoder_facts import EncoderFacts


def embedding_width(facts: EncoderFacts, language_width: int) -> int:
    """Return the language model's width; ValueError for a tower whose deeper features would have no place in an embedding."""
    if facts.levels:
        raise ValueError(
            f"fusion: the tower gives features of {facts.levels} deeper layers: the fusion `deep_tokens` takes them"
        )
    return language_width
