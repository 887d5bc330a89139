"""CogVLM: image features in place of image tokens, and in every layer weights of their own for them.

Wang et al. 2023, CogVLM: Visual Expert for Pretrained Language Models. Goes with the positions `shared`.
B rows, T tokens, D width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlmdata_train.fusions import embedding_width
from vlmdata_train.fusions.tokens import InPlace
from vlmdata_train.model.attention import AttentionPlan
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.repeated_blocks import blocks_of


@dataclass(eq=False)
class ImagePlaces:
    """Which tokens are of an image, (B, T); None: none of them."""

    marks: Tensor | None

    def at(self, places: Tensor) -> ImagePlaces:
        """Return what holds for generated tokens: none is of an image."""
        return ImagePlaces(None)


class Experts(InPlace):
    """The experts of all layers. Both sets of weights are computed for every token, and one result is taken."""

    def __init__(self, language: nn.Module, image_token_id: int) -> None:
        super().__init__(image_token_id, prefix=False)
        self.layers = nn.ModuleList()
        for block in blocks_of(language):
            linear = {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}
            experts = nn.ModuleDict({name.replace(".", "_"): copy.deepcopy(module) for name, module in linear.items()})
            self.layers.append(experts)
            current = _Current()
            block.register_forward_pre_hook(current.take, with_kwargs=True)
            for name, module in linear.items():
                # LoRA takes the hook to where its update is added (lora.py), so that no update reaches an image
                module.register_forward_hook(_Choose(current, experts, name.replace(".", "_")))

    def forward(
        self, ids: Tensor, embeddings: Tensor, features: Tensor, counts: list[int], segment_ids: Tensor, packing: AttentionPlan
    ) -> Tensor:
        """Put features in their places, and tell the layers where these are."""
        packing.images = ImagePlaces(ids == self.image_token_id)
        return super().forward(ids, embeddings, features, counts, segment_ids, packing)


class _Current:
    """The places of the batch that a layer is working on: taken as it begins, also when it is computed again."""

    marks: Tensor | None = None

    def take(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.marks = kwargs["packing"].images.marks


class _Choose:
    """After a linear layer: the expert's result where a token is of an image."""

    def __init__(self, current: _Current, experts: nn.ModuleDict, name: str) -> None:
        # The expert is looked up at each call: with LoRA it is another module than the one that was built.
        self.current, self.experts, self.name = current, experts, name

    def __call__(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor | None:
        if self.current.marks is None:
            return None
        return torch.where(self.current.marks[..., None], self.experts[self.name](args[0]), output)


@dataclass(frozen=True)
class VisualExperts:
    """The experts begin as copies of the language model's own weights, so that at first nothing changes."""

    def positions_of(self, tokens: int) -> int:
        """Return how many text positions an image of so many features takes."""
        return tokens

    def reads(self, facts: EncoderFacts, language_width: int) -> int:
        """Return the width of an embedding."""
        return embedding_width(facts, language_width)

    def build(self, language: nn.Module, width: int, image_token_id: int) -> nn.Module:
        """Copy every linear layer of every block, and hook the copies in."""
        return Experts(language, image_token_id)
