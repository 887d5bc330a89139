"""Pixtral's tower: images of any size that consist of whole patches, and 2-D rotary positions.

Agrawal et al. 2024, Pixtral 12B. P images of one size, N patches, C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PixtralVisionModel

from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.vision_half import VisionHalf


class PixtralTower(nn.Module):
    """Maps normalised pixels (P, 3, H, W) to features (P, N, C), in reading order."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode images of one size. Each image is a row of the batch, so no mask is needed to keep them apart."""
        model = self.model
        patches = model.patch_conv(pixels)  # (P, C, rows, columns)
        rows, columns = (torch.arange(count, device=pixels.device) for count in patches.shape[2:])
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)  # (N, 2)
        hidden = model.ln_pre(patches.flatten(2).transpose(1, 2))
        positions = model.patch_positional_embedding(hidden, places)
        return model.transformer(hidden, attention_mask=None, position_embeddings=positions).last_hidden_state


@dataclass(frozen=True)
class Pixtral(VisionHalf):
    """Pixtral's tower. Use it with the preprocessing `longest_edge`.

    `name` is a Pixtral model in LLaVA's format, or a Mistral 3 model.
    """

    kind = PixtralVisionModel
    place = "vision_tower"

    def facts(self) -> EncoderFacts:
        """Return the facts. `image_size` is the side of the smallest possible image, which is one patch."""
        config = self.load_config()
        return self.sizes(config.hidden_size, config.patch_size, config.patch_size)

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        return PixtralTower(self.load_model())
