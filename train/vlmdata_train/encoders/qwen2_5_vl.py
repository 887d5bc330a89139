"""Qwen2.5-VL's tower: images of any size, 2-D rotary positions, and attention within windows in all but a few layers.

Bai et al. 2025, Qwen2.5-VL. P tiles of one size, N patches, C width, s side of a square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from vlmdata_train.encoders.qwen2_vl import attended
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.vision_half import VisionHalf


class Qwen25VlTower(nn.Module):
    """Maps normalised pixels (P, 3 or 3 frames, H, W) to features (P, N, C), one square of s x s patches after the other."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        # The abstractor `patch_merger` replaces the tower's merger. The tower sorts squares by window before its blocks, and
        # sorts the rows of the merger's output back. So the module in place of the merger returns each square as one row.
        self.model.merger = nn.Sequential(nn.Unflatten(0, (-1, model.config.spatial_merge_size**2)), nn.Flatten(1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode the tiles. Each tile attends only to itself."""
        squares = attended(self.model, pixels).pooler_output  # (P N / s^2, s^2 C)
        return squares.view(len(pixels), -1, self.model.config.hidden_size)


@dataclass(frozen=True)
class Qwen25Vl(VisionHalf):
    """Qwen2.5-VL's tower. Use it with the preprocessing `smart_size` and the abstractor `patch_merger: {norm: rms}`."""

    kind = Qwen2_5_VisionTransformerPretrainedModel
    place = "visual"

    def facts(self) -> EncoderFacts:
        """Return the facts. `image_size` is the side of the smallest possible image, which is one square of patches."""
        config = self.load_config()
        side = config.patch_size * config.spatial_merge_size
        return self.sizes(config.hidden_size, side, config.patch_size, config.temporal_patch_size)

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        return Qwen25VlTower(self.load_model())
