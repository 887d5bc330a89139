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


def starts_of(segment_ids: Tensor) -> Tensor:
    """Return the index of the first token of each token's segment: (B, T) -> (B, T)."""
    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    places = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    return torch.where(begins, places, 0).cummax(1).values


def begun(marks: Tensor, start: Tensor) -> Tensor:
    """Return the number of marks from the start of each token's segment up to the token itself: bool (B, T) -> (B, T)."""
    count = marks.long().cumsum(1)
    return count - (count - marks.long()).gather(1, start)


class InPlace(nn.Module):
    """Replaces the embeddings of image tokens by features. It has no weights."""

    def __init__(self, image_token_id: int, prefix: bool | str) -> None:
        super().__init__()
        self.image_token_id, self.prefix = image_token_id, prefix

    def two_way_of(self, labels: Tensor, segment_ids: Tensor, ids: Tensor) -> Tensor | None:
        """Return a mask (B, T) of the prefix of each sample, or None if `prefix` is False; see `Tokens`."""
        if not self.prefix:
            return None
        start = starts_of(segment_ids)
        before_answer = begun(labels != -100, start) == 0
        prefix = before_answer & (segment_ids > 0)
        return prefix if self.prefix is True else prefix & self._until_images_end(ids, segment_ids, start)

    def _until_images_end(self, ids: Tensor, segment_ids: Tensor, start: Tensor) -> Tensor:
        """Return a mask (B, T) of the tokens of each sample up to its first run of image tokens, including the run.

        A sample without images has no such tokens.
        """
        is_image = ids == self.image_token_id
        is_after_run = torch.zeros_like(is_image)
        is_after_run[:, 1:] = is_image[:, :-1] & ~is_image[:, 1:]
        sample = segment_ids.long()
        images = torch.zeros(len(ids), ids.shape[1] + 1, dtype=torch.int64, device=ids.device)
        images = images.scatter_add(1, sample, is_image.long()).gather(1, sample)  # (B, T) image tokens of the sample
        place = torch.arange(ids.shape[1], device=ids.device)
        return (begun(is_after_run & (place > start), start) == 0) & (images > 0)

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
    """Fusion in which each image feature replaces one image token of the text.

    `prefix: true` gives full attention over the tokens before the first answer, as in PaliGemma. `prefix: images` gives it over
    the tokens up to the end of the first image, or of the first adjacent images: in moondream2, BOS and the image, but not the
    question.
    """

    prefix: bool | str = False  # true, false or `images`: tokens that all tokens of their sample see, also earlier ones

    def __post_init__(self) -> None:
        if self.prefix not in (True, False, "images"):
            raise ValueError(f"prefix must be true, false or images, not {self.prefix!r}")

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
