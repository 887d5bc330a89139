"""Fusions bring image features into the language model. A fusion part has these methods:

- `positions_of(tokens)` returns the number of image tokens in the text for an image with `tokens` features,
- `reads(facts, language_width)` returns the width of the features that the fusion needs from a tower (an image encoder) with
  these facts,
- `build(language, width, image_token_id)` returns the module for features of this width. A fusion with the attribute
  `reads_literals` also gets `literal_ids`, the ids of the other tokens that the writing puts into the text. The module's
  `forward(ids, embeddings, features, counts, segment_ids, packing)` returns embeddings (B, T, D). `features` (V, width) are
  the features of all images in reading order, and `counts` holds the number of features of each image. `forward`
  stores in `packing.images` the values that layers need later. The module's `two_way_of(labels, segment_ids, ids)` returns
  None, or a mask (B, T) of the tokens of each sample that attend to each other, also to later ones.
  A module with weights that not all tokens pass through, or that lets tokens skip layers, also has `weights_of_tokens()` and
  `tokens_of_weights(tokens, counts)`, from which FLOPs are counted (loop/flops.py).

B rows, T tokens, V features of all images, D width of the language model.
"""

from __future__ import annotations

from vlmdata_train.model.encoder_facts import EncoderFacts


def embedding_width(facts: EncoderFacts, language_width: int) -> int:
    """Return the language model's width, for a fusion that reads only the tower's final features.

    Raises ValueError if the tower also returns features of earlier layers.
    """
    if facts.levels:
        raise ValueError(
            f"fusion: the tower also returns features of {facts.levels} earlier layers. Use the fusion `deep_tokens`."
        )
    return language_width
