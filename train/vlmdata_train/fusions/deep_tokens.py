"""DeepStack: image features replace image tokens, and further features are added after the first layers of the language model.

The further features are from earlier layers of the tower (image encoder). The features of one such layer are called a level.
Meng et al. 2024, DeepStack, in the form of Qwen3-VL. B rows, T tokens, V features of all images, L levels, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlmdata_train.fusions.tokens import InPlace
from vlmdata_train.model.attention import AttentionPlan
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.repeated_blocks import blocks_of


@dataclass(eq=False)
class Deeper:
    """Tensors (B, T, D) to add to the outputs of the first layers, one for each layer. There are none during generation."""

    levels: list[Tensor]

    def at(self, places: Tensor) -> Deeper:
        """Return a `Deeper` without tensors, because generated tokens are never image tokens."""
        return Deeper([])


class DeepInPlace(InPlace):
    """Replaces image tokens by the first D channels of the features, and stores the other channels for the layers.

    The module has no weights.
    """

    def __init__(self, language: nn.Module, image_token_id: int, levels: int) -> None:
        super().__init__(image_token_id, prefix=False)
        self.levels = levels
        for level, block in enumerate(blocks_of(language)[:levels]):
            # a hook, so that the language model keeps its classes
            block.register_forward_hook(_Add(level), with_kwargs=True)

    def forward(
        self, ids: Tensor, embeddings: Tensor, features: Tensor, counts: list[int], segment_ids: Tensor, packing: AttentionPlan
    ) -> Tensor:
        """Return the embeddings with features at the image tokens: (B, T), (B, T, D), (V, (1 + L) D) -> (B, T, D)."""
        first, *deeper = features.chunk(1 + self.levels, -1)
        places, none = (ids == self.image_token_id)[..., None], torch.zeros_like(embeddings)
        packing.images = Deeper([none.masked_scatter(places, level.to(none.dtype)) for level in deeper])
        return super().forward(ids, embeddings, first, counts, segment_ids, packing)


class _Add:
    """A hook that adds a level's features to the output of a layer of the language model."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor) -> Tensor:
        levels = kwargs["packing"].images.levels
        return hidden + levels[self.level] if levels else hidden


@dataclass(frozen=True)
class DeepTokens:
    """Fusion for an image encoder that also returns features of earlier layers. It needs the abstractor `deep_merger`."""

    def positions_of(self, tokens: int) -> int:
        """Return `tokens`, because the text has one image token for each feature."""
        return tokens

    def reads(self, facts: EncoderFacts, language_width: int) -> int:
        """Return the width of the features that the fusion needs: the language model's width times (1 + the number of levels).

        A level is the features of one earlier layer of the encoder. Raises ValueError if the encoder returns no levels.
        """
        if facts.levels == 0:
            raise ValueError("deep_tokens: the tower returns no features of earlier layers. Use the fusion `tokens`.")
        return language_width * (1 + facts.levels)

    def build(self, language: nn.Module, width: int, image_token_id: int) -> nn.Module:
        """Return the module. Raises ValueError if the language model has fewer layers than the encoder's number of levels."""
        config: Any = language.config
        levels, layers = width // config.get_text_config().hidden_size - 1, len(blocks_of(language))
        if layers < levels:
            raise ValueError(
                f"deep_tokens: the tower returns features of {levels} earlier layers, so the language model must have"
                f" at least {levels} layers, not {layers}"
            )
        return DeepInPlace(language, image_token_id, levels)
