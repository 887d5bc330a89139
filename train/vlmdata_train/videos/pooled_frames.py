"""The features of each frame are scaled down to about a quarter, and a newline vector follows the last frame: LLaVA-OneVision.

Source: Li et al. 2024, LLaVA-OneVision. F frames, s side of a frame's grid, M = s^2 features of a frame, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.model.encoder_facts import Grid, Region
from vlmdata_train.model.model_recipe import check_range
from vlmdata_train.preprocessing.anyres import Anyres
from vlmdata_train.videos.frames import Frames


@dataclass(frozen=True)
class PooledFrames(Frames):
    """Frames whose features are scaled down bilinearly. The newline is that of `anyres`, which images use too."""

    pool: int = 2  # the side of the grid is divided by this number and rounded up; in LLaVA-OneVision 27 becomes 14
    newline: bool = True  # as in LLaVA-OneVision; it needs the preprocessing `anyres`

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "pool", least=1)

    def regions(self, times: Sequence[float], width: int, height: int, plan: Any) -> list[Region]:
        """Return a region for each frame, of which the last has the newline.

        Raises ValueError for features that are not a square grid, and for a newline without `anyres`.
        """
        if self.newline and not isinstance(plan.preprocessing, Anyres):
            raise ValueError(
                "video: pooled_frames uses the newline of `anyres`. Use that preprocessing, or set `newline: false`"
            )
        first, *_ = regions = super().regions(times, width, height, plan)
        if first.grid.extra or first.grid.rows != first.grid.columns:
            raise ValueError(
                f"video: pooled_frames needs a square grid of features, not {first.grid}. Use a square tower without a class"
                " token, an abstractor that keeps the grid, and `preprocessing: resize` for frames"
            )
        side = math.ceil(first.grid.rows / self.pool)
        small = [replace(region, grid=Grid(side, side)) for region in regions]
        return [*small[:-1], replace(small[-1], added=int(self.newline))]

    def arrange(self, tiles: Sequence[Tensor], arrangement: nn.Module | None) -> Tensor:
        """Return the scaled features of all frames in order, and the newline: (M, D) each -> (tokens, D)."""
        features = torch.stack(list(tiles)).transpose(1, 2)  # (F, D, M)
        before = math.isqrt(features.shape[2])
        after = math.ceil(before / self.pool)
        scaled = functional.interpolate(features.unflatten(2, (before, before)), (after, after), mode="bilinear")
        small = scaled.flatten(2).transpose(1, 2).flatten(0, 1)  # (F s^2, D)
        if not self.newline:
            return small
        assert arrangement is not None
        return torch.cat([small, arrangement.get_parameter("newline").to(small.dtype)[None]])
