"""Qwen2-VL's tower: images of any size that consist of whole squares of patches, and 2-D rotary positions.

A tile is an image, or two consecutive frames of a video.
Wang et al. 2024, Qwen2-VL. P tiles of one size, N patches, C width, p side of a patch, s side of a square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.vision_half import VisionHalf


class Qwen2VlTower(nn.Module):
    """Maps normalised pixels (P, 3 or 3 frames, H, W) to features (P, N, C), one square of s x s patches after the other."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.model.merger = nn.Identity()  # the abstractor `patch_merger` replaces the merger

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode the tiles. Each tile attends only to itself."""
        return attended(self.model, pixels).last_hidden_state.unflatten(0, (len(pixels), -1))


def attended(model: Any, pixels: Tensor) -> Any:
    """Return the output of a Qwen tower for tiles of one size. The rows of the output are patches, square by square."""
    config = model.config
    rows, columns = pixels.shape[2] // config.patch_size, pixels.shape[3] // config.patch_size
    grid = torch.tensor([[1, rows, columns]] * len(pixels), device=pixels.device)
    patches = in_squares(pixels, config.patch_size, config.spatial_merge_size, config.temporal_patch_size)
    return model(patches, grid_thw=grid)


def in_squares(pixels: Tensor, patch: int, square: int, frames: int) -> Tensor:
    """Cut tiles into patches, one square after the other: (P, 3, H, W) or (P, 3 frames, H, W) -> (P N, 3 frames p p).

    The tower expects `frames` consecutive frames of a video, so an image is repeated as `frames` equal frames.
    """
    cut = pixels.unfold(2, patch, patch).unfold(3, patch, patch)  # (P, channels, rows, columns, p, p)
    cut = cut.unflatten(3, (-1, square)).unflatten(2, (-1, square))  # (P, channels, rows/s, s, columns/s, s, p, p)
    cut = cut.permute(0, 2, 4, 3, 5, 1, 6, 7).flatten(0, 4)  # (P N, channels, p, p)
    own = cut.unflatten(1, (-1, 3)).transpose(1, 2)  # (P N, 3, 1 or frames, p, p)
    return own.expand(-1, -1, frames, -1, -1).flatten(1)


@dataclass(frozen=True)
class Qwen2Vl(VisionHalf):
    """Qwen2-VL's tower. Use it with the preprocessing `smart_size` and the abstractor `patch_merger`."""

    kind = Qwen2VisionTransformerPretrainedModel
    place = "visual"

    def facts(self) -> EncoderFacts:
        """Return the facts. `image_size` is the side of the smallest possible image, which is one square of patches."""
        config = self.load_config()
        side = config.patch_size * config.spatial_merge_size
        return self.sizes(config.embed_dim, side, config.patch_size, config.temporal_patch_size)

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        return Qwen2VlTower(self.load_model())
