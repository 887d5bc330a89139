"""Qwen3-VL's tower: images of any size, interpolated position embeddings, rotary positions, and features of several layers.

Bai et al. 2025, Qwen3-VL; Meng et al. 2024, DeepStack. P tiles of one size, N patches, C width, L earlier layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from vlmdata_train.encoders.qwen2_vl import attended
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.vision_half import VisionHalf

HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of the published processor


class Qwen3VlTower(nn.Module):
    """Maps normalised pixels (P, 3 or 3 frames, H, W) to features (P, N, (1 + L) C), one square of patches after the other.

    The features of a patch are those of the last layer and of L earlier layers, concatenated.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        # the abstractor `deep_merger` replaces all mergers
        self.model.merger = nn.Identity()
        self.model.deepstack_merger_list = nn.ModuleList(nn.Identity() for _ in model.deepstack_merger_list)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode the tiles. Each tile attends only to itself."""
        found = attended(self.model, pixels)
        return torch.cat([found.last_hidden_state, *found.deepstack_features], -1).unflatten(0, (len(pixels), -1))


@dataclass(frozen=True)
class Qwen3Vl(VisionHalf):
    """Qwen3-VL's tower. Use it with the preprocessing `smart_size`, the abstractor `deep_merger`, the fusion `deep_tokens` and
    the positions `interleaved_mrope`.
    """

    kind = Qwen3VLVisionModel
    place = "visual"

    def facts(self) -> EncoderFacts:
        """Return the facts. `image_size` is the side of the smallest possible image, which is one square of patches.

        Raises ValueError if the earlier layers are not in ascending order. transformers would then mix up their mergers.
        """
        config = self.load_config()
        if list(config.deepstack_visual_indexes) != sorted(set(config.deepstack_visual_indexes)):
            raise ValueError(f"deepstack_visual_indexes must ascend, not {list(config.deepstack_visual_indexes)}")
        levels, side = len(config.deepstack_visual_indexes), config.patch_size * config.spatial_merge_size
        return EncoderFacts(
            config.hidden_size * (1 + levels), side, config.patch_size, HALF, HALF, levels=levels,
            frames_per_tile=config.temporal_patch_size,
        )  # fmt: skip

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        return Qwen3VlTower(self.load_model())
