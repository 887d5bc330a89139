"""Video parts say which frames of a video a model reads, and how they become features. A part has these methods:

- `choose(times)` returns the numbers of the frames to read, in order, for frames at these times (seconds),
- `regions(times, width, height, plan)` returns the regions of the features (`Region` in `model/encoder_facts.py`), one for each
  time step, for chosen frames at these times. `plan` is the `ImagePlan`,
- `seconds(times)` returns the time of each region,
- `prepare(frames, plan)` returns the tiles: uint8 (H, W, 3) of each frame -> uint8 (tiles, channels, H, W),
- `arrange(tiles, arrangement)` returns the features of a video, (tokens, D), from the features of its tiles, (M, D) each.
  `arrangement` is the preprocessing's module for images, or None. A video part has no weights.

Without a part, each frame is an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmdata_train.model.model_recipe import check_range
from vlmdata_train.model.pixels import Resample, resize


@dataclass(frozen=True)
class Sampled:
    """Base class of video parts, which chooses frames at a rate or in a number. Set `fps` or `count`, or none to read all."""

    fps: float | None = None  # frames per second
    count: int | None = None  # number of frames, at equal distances
    max_frames: int | None = None  # of a longer video, this many frames at equal distances

    def __post_init__(self) -> None:
        check_range(self, "count max_frames", least=1)
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ValueError(f"fps must be more than 0, not {self.fps}")
        if self.fps is not None and self.count is not None:
            raise ValueError("set either fps or count, not both")

    def choose(self, times: Sequence[float]) -> list[int]:
        """Return the numbers of the chosen frames, in order. A video with too few frames keeps all of them."""
        chosen = list(range(len(times)))
        if self.fps is not None:
            chosen = at_rate(times, self.fps)
        if self.count is not None:
            chosen = spread(chosen, self.count)
        if self.max_frames is not None:
            chosen = spread(chosen, self.max_frames)
        return chosen


def at_rate(times: Sequence[float], fps: float) -> list[int]:
    """Return the numbers of the frames that are the first at or after the times 0, 1 / fps, 2 / fps … of the video."""
    steps = (np.asarray(times) - times[0]) * fps
    wanted = np.arange(int(np.floor(steps[-1] + 1e-6)) + 1)
    return sorted(set(np.searchsorted(steps, wanted - 1e-6).tolist()))


def spread(numbers: Sequence[int], count: int) -> list[int]:
    """Return `count` of the numbers at equal distances, with the first and the last, or all numbers if there are fewer."""
    if len(numbers) <= count:
        return list(numbers)
    return [numbers[i] for i in np.linspace(0, len(numbers) - 1, count).round().astype(int)]


def of_one_size(frames: Sequence[np.ndarray], resample: Resample) -> list[np.ndarray]:
    """Return the frames, uint8 (H, W, 3) each, in the size of the first."""
    height, width = frames[0].shape[:2]
    return [resize(frame, height, width, resample) for frame in frames]
