"""BLIP-2's tower: EVA's ViT-g with the class token, after the last norm.

Li et al. 2023, BLIP-2; Fang et al. 2022, EVA. P images, N patches and the class token, C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2ForConditionalGeneration, Blip2VisionModel

from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.placeholders import are_on
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD, VisionHalf


class Blip2Tower(nn.Module):
    """Maps normalised pixels (P, 3, H, W) to features (P, N, C), with the class token first."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode the images."""
        return self.model(pixels).last_hidden_state


@dataclass(frozen=True)
class Blip2(VisionHalf):
    """BLIP-2's tower. Use it with the preprocessing `resize` and the abstractor `q_former`. `name` is a BLIP-2."""

    kind = Blip2VisionModel
    place = "vision_model"

    def load_model(self) -> nn.Module:
        """Return the tower of transformers with its weights."""
        if self.name is None or are_on():
            return super().load_model()
        whole: Any = Blip2ForConditionalGeneration.from_pretrained(self.name, dtype=torch.float32)
        return whole.vision_model

    def facts(self) -> EncoderFacts:
        """Return the facts. The class token is one of the features."""
        config = self.load_config()
        return EncoderFacts(config.hidden_size, config.image_size, config.patch_size, CLIP_MEAN, CLIP_STD, extra=1)

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        return Blip2Tower(self.load_model())
