"""Consecutive frames share a tile, whose patches reach over all of them: the temporal patches of Qwen2-VL, 2.5 and 3.

Source: Wang et al. 2024, Qwen2-VL. k frames of a tile, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vlmdata_train.model.encoder_facts import EncoderFacts, Region
from vlmdata_train.model.model_recipe import check_range
from vlmdata_train.model.pixels import Resample, resize, to_tiles
from vlmdata_train.preprocessing.smart_size import smart_resize
from vlmdata_train.videos import Sampled, Spacing


@dataclass(frozen=True)
class TemporalPatches(Sampled):
    """Every `stack` frames are one tile of whole squares of patches. The last frame is repeated to fill the last tile.

    Qwen2-VL and Qwen2.5-VL limit the pixels of a frame, and Qwen3-VL those of all frames together.
    """

    min_frames: int = 4  # the value of Qwen2-VL's and Qwen3-VL's processors
    max_frames: int | None = 768  # likewise
    multiple: int = 2  # likewise; Qwen3-VL: 1
    spacing: Spacing = "starts"  # as in Qwen2-VL's processor; Qwen3-VL: ends
    stack: int = 2  # frames of a tile; it must be the tower's temporal patch size
    min_pixels: int = 128 * 28 * 28  # the value of Qwen2-VL's video processor; Qwen3-VL: 128 * 32 * 32
    max_pixels: int = 768 * 28 * 28  # the value of Qwen2-VL's video processor; Qwen3-VL: 768 * 32 * 32
    limits: Literal["frame", "video"] = "frame"  # whether min_pixels and max_pixels are those of a frame or of all frames
    max_total: int | None = None  # `frame`: pixels of all tiles together. qwen-vl-utils: 0.9 * 128000 * 28 * 28
    max_frame: int | None = None  # `video`: pixels of a frame. qwen-vl-utils: 768 * 32 * 32
    square: int = 2  # side, in patches, of a square that the abstractor merges
    resample: Resample = "bicubic"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "stack square min_pixels max_pixels max_total max_frame", least=1)
        other = "max_frame" if self.limits == "frame" else "max_total"
        if getattr(self, other) is not None:
            raise ValueError(f"{other} has no effect with `limits: {self.limits}`")

    def regions(self, times: Sequence[float], width: int, height: int, plan: Any) -> list[Region]:
        """Return a region for each tile. Raises ValueError if the tower's temporal patch size is not `stack`."""
        if (holds := plan.facts.frames_per_tile) != self.stack:
            raise ValueError(
                f"video: temporal_patches has `stack: {self.stack}`, but a tile of this tower holds {holds} frames. Set `stack`"
                " to this number, or use the video part `frames`"
            )
        size = self.tile_size(len(times), width, height, plan.facts)
        return [Region(plan.grid_of(*size))] * math.ceil(len(times) / self.stack)

    def seconds(self, times: Sequence[float]) -> list[float]:
        """Return the mean of the first and the last time of each tile."""
        filled, last = self._filled(times), self.stack - 1
        return [(filled[start] + filled[start + last]) / 2 for start in range(0, len(filled), self.stack)]

    def prepare(self, frames: Sequence[np.ndarray], plan: Any) -> Tensor:
        """Return the tiles, frame by frame: uint8 (H, W, 3) each -> uint8 (tiles, 3 k, rows, columns)."""
        height, width = frames[0].shape[:2]
        size = self.tile_size(len(frames), width, height, plan.facts)
        resized = to_tiles([resize(frame, *size, self.resample) for frame in self._filled(frames)])
        return resized.unflatten(0, (-1, self.stack)).flatten(1, 2)

    def arrange(self, tiles: Sequence[Tensor], arrangement: nn.Module | None) -> Tensor:
        """Return the features of all tiles in order."""
        return torch.cat(list(tiles))

    def tile_size(self, frames: int, width: int, height: int, facts: EncoderFacts) -> tuple[int, int]:
        """Return the (height, width) of the tiles of a video with this number of frames of this size."""
        factor = facts.patch_size * self.square
        if self.limits == "frame":
            most = self.max_pixels
            if self.max_total is not None:
                most = max(min(most, self.max_total * self.stack // frames), self._least)
            return smart_resize(height, width, factor, self.min_pixels, most)
        most = self.max_pixels
        if self.max_frame is not None:
            most = max(min(self.max_frame, most // frames), self._least) * frames
        return video_resize(frames, height, width, factor, self.stack, (self.min_pixels, most))

    @property
    def _least(self) -> int:
        """The least upper limit on the pixels of a frame, so that it stays above the lower limit."""
        return int(self.min_pixels * 1.05)

    def _filled(self, values: Sequence[Any]) -> list[Any]:
        """Return the values of frames, with the last repeated to fill the last tile."""
        return [*values, *[values[-1]] * (-len(values) % self.stack)]


def video_resize(frames: int, height: int, width: int, factor: int, stack: int, limits: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of frames in multiples of `factor`, so that all frames have least to most pixels (`limits`).

    The number of frames counts rounded to a multiple of `stack`, as in Qwen3-VL's processor.
    """
    least, most = limits
    if min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    counted = max(round(frames / stack), 1) * stack
    if counted * rows * columns > most:
        shrink = math.sqrt(frames * height * width / most)
        rows, columns = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif counted * rows * columns < least:
        grow = math.sqrt(least / (frames * height * width))
        rows, columns = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return rows, columns
