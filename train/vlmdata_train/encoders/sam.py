"""The image tower of Segment Anything: windowed attention, relative positions and a neck of convolutions.

Sources: Kirillov et al. 2023, Segment Anything; Lu et al. 2024, DeepSeek-VL, which also reduces the grid.

P images, N patches, C width, (R, R) grid of patches, S side of the reduced grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam.modeling_sam import SamVisionModel, SamVisionNeck

from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.hf_configs import published_config
from vlmdata_train.model.placeholders import are_on
from vlmdata_train.model.unused_weights import set_unused_aside
from vlmdata_train.model.vision_half import VisionHalf


class Reducer(nn.Module):
    """Maps SAM's output and the states of an earlier layer to a grid of S x S with four times the channels."""

    def __init__(self, config: Any, side: int) -> None:
        super().__init__()
        width = config.output_channels
        self.side = side
        self.neck = SamVisionNeck(config)  # for the states of the earlier layer
        self.halve = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1, bias=False),
        )
        self.alpha = nn.Parameter(torch.zeros(1))  # weight of the earlier layer, 0 in a new model as in transformers

    def forward(self, last: Tensor, early: Tensor) -> Tensor:
        """Return features (P, 4 C, S, S) of the output (P, C, R, R) and of earlier states (P, R, R, width of the layers)."""
        return self._reduced(last) + self._reduced(self.neck(early)) * self.alpha

    def _reduced(self, features: Tensor) -> Tensor:
        size = (4 * self.side, 4 * self.side)
        return self.halve(functional.interpolate(features, size, mode="bilinear", align_corners=False))


class SamTower(nn.Module):
    """Maps normalised pixels (P, 3, H, W) to features (P, N, C), or (P, S * S, 4 C) with a reducer."""

    def __init__(self, model: Any, side: int | None) -> None:
        super().__init__()
        self.model = model
        self.reducer = Reducer(model.config, side) if side else None
        self.early = model.config.global_attn_indexes[0]  # the layer before it in depth has only seen windows

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features of all patches in reading order."""
        encoder = self.model.vision_encoder
        hidden = encoder.patch_embed(pixels)  # (P, R, R, width of the layers)
        if encoder.pos_embed is not None:
            hidden = hidden + encoder.pos_embed
        early = hidden
        for number, layer in enumerate(encoder.layers):
            hidden = layer(hidden)
            early = hidden if number == self.early else early
        features = encoder.neck(hidden)
        if self.reducer is not None:
            features = self.reducer(features, early)
        return features.flatten(2).transpose(1, 2)  # (P, N, C)


@dataclass(frozen=True)
class Sam(VisionHalf):
    """A tower from `name` (a published SAM) or `config` (random weights). It reads square images of one size."""

    kind = SamVisionModel
    place = "vision_encoder"
    side: int | None = None  # reduce the grid to this side by convolutions, with four times the channels; 24 in DeepSeek-VL
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of SAM's processor
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side is not None and self.side < 1:
            raise ValueError(f"side must be 1 or more, not {self.side}")

    def load_config(self) -> Any:
        """Return the tower's configuration, without any weights. Raises ValueError if `name` is another kind of model."""
        if self.config is not None:
            return super().load_config()
        config = published_config(str(self.name))
        config = getattr(config, "vision_config", config)
        if config.model_type != "sam_vision_model":
            raise ValueError(f"sam: {self.name} has a tower of type {config.model_type}, which is not SAM's")
        return config

    def load_model(self) -> nn.Module:
        """Return the tower of transformers with its weights."""
        config = self.load_config()
        if self.name is None or are_on():
            return self.kind(config)
        model: nn.Module = self.kind.from_pretrained(self.name, config=config, dtype=torch.float32)
        return model

    def facts(self) -> EncoderFacts:
        """Return the facts. A reduced grid has the same side for any image."""
        config = self.load_config()
        width = config.output_channels * (4 if self.side else 1)
        return EncoderFacts(width, config.image_size, config.patch_size, tuple(self.mean), tuple(self.std), side=self.side or 0)  # type: ignore[arg-type]

    def build(self) -> nn.Module:
        """Return the tower with its weights. A reducer has random weights."""
        tower, size = SamTower(self.load_model(), self.side), self.load_config().image_size
        set_unused_aside(tower, size, size)
        return tower
