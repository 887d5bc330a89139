"""Qwen2.5-VL's tower: images of any size, attention within windows but for a few layers, 2-D rotary positions.

Bai et al. 2025, Qwen2.5-VL. P images of one size, N patches, C width, s side of a square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from vlmdata_train.encoders.qwen2_vl import attended
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.vision_half import VisionHalf


class Tower(nn.Module):
    """Normalised pixels (P, 3, H, W) -> (P, N, C), the patches of each square of s x s one after the other."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        # The tower sorts squares by window, and sorts back what its merger made of them. The abstractor `patch_merger` takes
        # the merger's place; here a square only becomes one row, so that it is sorted back whole.
        self.model.merger = nn.Sequential(nn.Unflatten(0, (-1, model.config.spatial_merge_size**2)), nn.Flatten(1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Each image attends to itself alone."""
        squares = attended(self.model, pixels).pooler_output  # (P N / s^2, s^2 C)
        return squares.view(len(pixels), -1, self.model.config.hidden_size)


@dataclass(frozen=True)
class Qwen25Vl(VisionHalf):
    """Goes with the preprocessing `smart_size` and the abstractor `patch_merger: {norm: rms}`."""

    kind = Qwen2_5_VisionTransformerPretrainedModel
    place = "visual"

    def facts(self) -> EncoderFacts:
        """Return sizes; the image size is one square, the smallest image that there is."""
        config = self.load_config()
        return self.sizes(config.hidden_size, config.patch_size * config.spatial_merge_size, config.patch_size)

    def build(self) -> nn.Module:
        """Make the tower with its weights."""
        return Tower(self.load_model())
