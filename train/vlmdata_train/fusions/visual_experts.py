"""CogVLM: image features replace image tokens, and every layer has separate weights for the image tokens.

Wang et al. 2023, CogVLM: Visual Expert for Pretrained Language Models. Use this fusion with the position scheme `shared`.
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
    """Which tokens are image tokens. `marks` is a mask (B, T), or None if no token is an image token."""

    marks: Tensor | None

    def at(self, places: Tensor) -> ImagePlaces:
        """Return `ImagePlaces(None)` for generated tokens, because they are never image tokens."""
        return ImagePlaces(None)


class Experts(InPlace):
    """Copies of the language model's linear layers, called experts. Their outputs are used for image tokens.

    An expert and its original layer both process every token. The expert's output is used for image tokens, and the original
    layer's output for all other tokens.
    """

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
                # with LoRA, the hook runs after the update (lora.py), so the update does not change the output for image tokens
                module.register_forward_hook(_Choose(current, experts, name.replace(".", "_")))

    def forward(
        self, ids: Tensor, embeddings: Tensor, features: Tensor, counts: list[int], segment_ids: Tensor, packing: AttentionPlan
    ) -> Tensor:
        """Replace the embeddings of image tokens by features, and store the mask of these tokens for the layers."""
        packing.images = ImagePlaces(ids == self.image_token_id)
        return super().forward(ids, embeddings, features, counts, segment_ids, packing)


class _Current:
    """The mask of image tokens in a layer's current batch. It is set before each forward pass and before each recomputation."""

    marks: Tensor | None = None

    def take(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Set the mask from the layer's arguments. This is a forward pre-hook."""
        self.marks = kwargs["packing"].images.marks


class _Choose:
    """A hook of a linear layer. For image tokens, it replaces the layer's output by the expert's output."""

    def __init__(self, current: _Current, experts: nn.ModuleDict, name: str) -> None:
        # The expert is looked up at each call because LoRA replaces the module.
        self.current, self.experts, self.name = current, experts, name

    def __call__(self, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor | None:
        if self.current.marks is None:
            return None
        return torch.where(self.current.marks[..., None], self.experts[self.name](args[0]), output)


@dataclass(frozen=True)
class VisualExperts:
    """Fusion with separate weights for image tokens. These weights start as copies of the language model's weights."""

    def positions_of(self, tokens: int) -> int:
        """Return `tokens`, because the text has one image token for each feature."""
        return tokens

    def reads(self, facts: EncoderFacts, language_width: int) -> int:
        """Return the language model's width, because the fusion reads only the encoder's final features.

        Raises ValueError if the encoder also returns features of earlier layers.
        """
        return embedding_width(facts, language_width)

    def build(self, language: nn.Module, width: int, image_token_id: int) -> nn.Module:
        """Return the experts, which are copies of the linear layers in the language model's blocks. Hooks run them there."""
        return Experts(language, image_token_id)
