"""Pixtral's tower: images of any size in whole patches, with 2-D rotary positions.

Agrawal et al. 2024, Pixtral 12B. P images of one size, N patches, C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, PixtralVisionConfig, PixtralVisionModel

from vlmdata_train.encoders import EncoderFacts


class Tower(nn.Module):
    """Normalised pixels (P, 3, H, W) -> (P, N, C), row by row."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """All images have one size and one row of the batch each, so that none sees another and no mask is needed."""
        model = self.model
        patches = model.patch_conv(pixels)  # (P, C, rows, columns)
        rows, columns = (torch.arange(count, device=pixels.device) for count in patches.shape[2:])
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)  # (N, 2)
        hidden = model.ln_pre(patches.flatten(2).transpose(1, 2))
        positions = model.patch_positional_embedding(hidden, places)
        return model.transformer(hidden, attention_mask=None, position_embeddings=positions).last_hidden_state


@dataclass(frozen=True)
class Pixtral:
    """Goes with the preprocessing `longest_edge`."""

    name: str | None = None  # a published model in LLaVA's form over Pixtral's tower, or Mistral 3, of which the tower is taken
    config: dict[str, Any] | None = None  # hidden_size, patch_size, ... as PixtralVisionConfig names them, from scratch

    def __post_init__(self) -> None:
        if (self.name is None) == (self.config is None):
            raise ValueError("give either name (published weights) or config (from scratch)")

    def load_config(self) -> PixtralVisionConfig:
        """Return the tower's configuration, without any weights."""
        return PixtralVisionConfig(**self.config) if self.config else AutoConfig.from_pretrained(str(self.name)).vision_config

    def facts(self) -> EncoderFacts:
        """Return sizes; the image size is one patch, the smallest image that there is."""
        config: Any = self.load_config()
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's, as published
        return EncoderFacts(config.hidden_size, config.patch_size, config.patch_size, mean, std)

    def build(self) -> nn.Module:
        """Make the tower with its weights."""
        if self.name is None:
            return Tower(PixtralVisionModel(self.load_config()))
        whole: Any = AutoModelForImageTextToText.from_pretrained(self.name, dtype=torch.float32)
        return Tower(whole.model.vision_tower)
