"""Image features replace image tokens, for any number of images anywhere in the text: LLaVA and most later models.

B rows, T tokens, V features of all images, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmdata_train.fusions import embedding_width
from vlmdata_train.model.attention import AttentionPlan
from vlmdata_train.model.encoder_facts import EncoderFacts


class InPlace(nn.Module):
    """Replaces the embeddings of image tokens by features. It has no weights."""

    def __init__(self, image_token_id: int, prefix: bool) -> None:
        super().__init__()
        self.image_token_id, self.prefix = image_token_id, prefix

    def prefix_of(self, labels: Tensor, segment_ids: Tensor) -> Tensor | None:
        """Return a mask (B, T) of the tokens before the first answer of their sample, or None if `prefix` is False."""
        if not self.prefix:
            return None
        answers = labels != -100
        count = answers.long().cumsum(1)
        begins = torch.ones_like(answers)
        begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
        start = torch.where(begins, torch.arange(labels.shape[1], device=labels.device), 0).cummax(1).values
        return (count == (count - answers.long()).gather(1, start)) & (segment_ids > 0)

    def forward(
        self, ids: Tensor, embeddings: Tensor, features: Tensor, counts: list[int], segment_ids: Tensor, packing: AttentionPlan
    ) -> Tensor:
        """Return the embeddings with feature v in place of the v-th image token: (B, T), (B, T, D), (V, D) -> (B, T, D).

        Image tokens are numbered in reading order. On a CPU, raises ValueError if there are more or fewer features than image
        tokens.
        """
        places = ids == self.image_token_id
        if not ids.is_cuda and int(places.sum()) != len(features):  # a GPU would wait for the sum
            raise ValueError(f"the text has {int(places.sum())} image tokens, but there are {len(features)} image features")
        return embeddings.masked_scatter(places[..., None], features.to(embeddings.dtype))


@dataclass(frozen=True)
class Tokens:
    """Fusion in which each image feature replaces one image token of the text."""

    prefix: bool = False  # full attention over the tokens before the first answer: PaliGemma, moondream

    def positions_of(self, tokens: int) -> int:
        """Return `tokens`, because the text has one image token for each feature."""
        return tokens

    def reads(self, facts: EncoderFacts, language_width: int) -> int:
        """Return the width of the features that the fusion reads, which is the language model's width.

        Raises ValueError if the encoder also returns features of earlier layers.
        """
        return embedding_width(facts, language_width)

    def build(self, language: nn.Module, width: int, image_token_id: int) -> nn.Module:
        """Return the module. The language model stays unchanged."""
        return InPlace(image_token_id, self.prefix)
