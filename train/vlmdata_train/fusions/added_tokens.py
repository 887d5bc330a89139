"""Image features are added to the embeddings of image tokens: Molmo and Molmo 2.

Sources: Deitke et al. 2024, Molmo and PixMo; the published code of both models. B rows, T tokens, V features of all images, D
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vlmdata_train.fusions import embedding_width
from vlmdata_train.fusions.tokens import InPlace
from vlmdata_train.model.attention import AttentionPlan
from vlmdata_train.model.encoder_facts import EncoderFacts


class AddedInPlace(InPlace):
    """Adds features to the embeddings of image tokens. It has no weights.

    `two_way_ids` are the ids of the tokens that attend to each other, or None if attention is causal.
    """

    def __init__(self, image_token_id: int, two_way_ids: Sequence[int] | None) -> None:
        super().__init__(image_token_id, prefix=False)
        self.two_way_ids = two_way_ids

    def two_way_of(self, labels: Tensor, segment_ids: Tensor, ids: Tensor) -> Tensor | None:
        """Return a mask (B, T) of the tokens of all images of each sample, or None if attention is causal."""
        if self.two_way_ids is None:
            return None
        is_own = torch.stack([ids == number for number in self.two_way_ids]).any(0)
        return is_own & (segment_ids > 0)

    def forward(
        self, ids: Tensor, embeddings: Tensor, features: Tensor, counts: list[int], segment_ids: Tensor, packing: AttentionPlan
    ) -> Tensor:
        """Return the embeddings, with feature v added to the v-th image token: (B, T), (B, T, D), (V, D) -> (B, T, D).

        Image tokens are numbered in reading order. On a CPU, raises ValueError if there are more or fewer features than image
        tokens.
        """
        return embeddings + super().forward(ids, torch.zeros_like(embeddings), features, counts, segment_ids, packing)


@dataclass(frozen=True)
class AddedTokens:
    """Fusion in which each image feature is added to the embedding of one image token of the text."""

    # the tokens of all images of a sample attend to each other, also to later ones. They are the image tokens and the tokens
    # that the writing puts around and between them. Molmo: false; Molmo 2: true
    two_way: bool = False
    reads_literals: ClassVar = True  # `build` also gets the ids of the tokens of the writing

    def positions_of(self, tokens: int) -> int:
        """Return `tokens`, because the text has one image token for each feature."""
        return tokens

    def reads(self, facts: EncoderFacts, language_width: int) -> int:
        """Return the width of the features that the fusion reads, which is the language model's width.

        Raises ValueError if the encoder also returns features of earlier layers.
        """
        return embedding_width(facts, language_width)

    def build(self, language: nn.Module, width: int, image_token_id: int, literal_ids: Sequence[int]) -> nn.Module:
        """Return the module. The language model stays unchanged."""
        return AddedInPlace(image_token_id, [image_token_id, *literal_ids] if self.two_way else None)
