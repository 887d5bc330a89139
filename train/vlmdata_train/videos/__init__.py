"""Video parts say which frames of a video a model reads, and how they become features. A part has these methods:

- `choose(times)` returns the numbers of the frames to read, in order, for frames at these times (seconds),
- `regions(times, width, height, plan)` returns the regions of the features (`Region` in `model/encoder_facts.py`), one for each
  time step, for chosen frames at these times. `plan` is the `ImagePlan`,
- `seconds(times)` returns the time of each region, and `tile_times(times)` the time of each tile,
- `prepare(frames, plan)` returns the tiles: uint8 (H, W, 3) of each frame -> uint8 (tiles, channels, H, W),
- `arrange(tiles, arrangement)` returns the features of a video, (tokens, D), from the features of its tiles, (M, D) each.
  `arrangement` is the preprocessing's module for images, or None. A video part has no weights.

A part with the attribute `joins_frames = True` needs an abstractor with this attribute, whose module reads all frames of a
video together (see `model/surroundings.py`). Then the video has one region, and the model does not call `arrange`.

Without a part, each frame is an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlmdata_train.model.model_recipe import check_range
from vlmdata_train.model.pixels import Resample, resize

Spacing = Literal["steps", "starts", "middles", "ends", "ends_down"]


@dataclass(frozen=True)
class Sampled:
    """Base class of video parts, which chooses frames at a rate or in a number. Set `fps` or `count`, or none to read all.

    `spacing` says where the chosen frames are. A video is divided into equal intervals, one for each chosen frame:
    - `steps`: the first frames at or after the times 0, 1 / fps, 2 / fps …; for a number of frames, like `ends`,
    - `starts`: the first frame of each interval (Qwen2-VL, LLaVA-OneVision),
    - `middles`: the frame in the middle of each interval (InternVL),
    - `ends`: at equal distances from the first frame to the last, at the nearest frames (Qwen3-VL),
    - `ends_down`: likewise, but at the frames before these places, and the number of frames is rounded (SmolVLM).
    """

    fps: float | None = None  # frames per second
    count: int | None = None  # number of frames
    min_frames: int = 1  # a video with fewer frames keeps all
    max_frames: int | None = None
    multiple: int = 1  # the number of frames is rounded down to a multiple of this number
    spacing: Spacing = "steps"

    def __post_init__(self) -> None:
        check_range(self, "count min_frames max_frames multiple", least=1)
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ValueError(f"fps must be more than 0, not {self.fps}")
        if self.fps is not None and self.count is not None:
            raise ValueError("set either fps or count, not both")
        if self.max_frames is not None and self.max_frames < max(self.min_frames, self.multiple):
            raise ValueError("max_frames must be at least min_frames and multiple")

    def choose(self, times: Sequence[float]) -> list[int]:
        """Return the numbers of the chosen frames, in order. A video with too few frames keeps all of them."""
        every = list(range(len(times)))
        chosen = every if self.fps is None or self.spacing != "steps" else at_rate(times, self.fps)
        wanted = len(chosen) if self.count is None else self.count
        if self.fps is not None and self.spacing != "steps":
            wanted = number_at_rate(times, self.fps, is_nearest=self.spacing == "ends_down")
        count = self._limited(wanted, len(times))
        return spaced(chosen if count <= len(chosen) else every, count, self.spacing)

    def tile_times(self, times: Sequence[float]) -> list[float]:
        """Return the time of each tile, by default that of each region."""
        return self.seconds(times)

    def seconds(self, times: Sequence[float]) -> list[float]:
        """Return the time of each region, by default that of each frame."""
        return list(times)

    def _limited(self, count: int, frames: int) -> int:
        """Return the number of frames to choose among `frames` frames: `count`, within the limits."""
        count = min(max(count, self.min_frames), frames if self.max_frames is None else self.max_frames, frames)
        return count // self.multiple * self.multiple or count


def number_at_rate(times: Sequence[float], fps: float, *, is_nearest: bool) -> int:
    """Return how many frames a video has at a rate, rounded down or to the nearest. All frames last equally long."""
    duration = (times[-1] - times[0]) * len(times) / max(len(times) - 1, 1)
    exact = round(duration * fps, 6)  # without errors of rounding in the times
    return max(round(exact) if is_nearest else int(exact), 1)


def at_rate(times: Sequence[float], fps: float) -> list[int]:
    """Return the numbers of the frames that are the first at or after the times 0, 1 / fps, 2 / fps … of the video."""
    steps = (np.asarray(times) - times[0]) * fps
    wanted = np.arange(int(np.floor(steps[-1] + 1e-6)) + 1)
    return sorted(set(np.searchsorted(steps, wanted - 1e-6).tolist()))


def spaced(numbers: Sequence[int], count: int, spacing: Spacing) -> list[int]:
    """Return `count` of the numbers at equal distances, or all numbers if there are not more; see `Sampled`."""
    if len(numbers) <= count:
        return list(numbers)
    if spacing in ("starts", "middles"):
        places = [(2 * n + (spacing == "middles")) * len(numbers) // (2 * count) for n in range(count)]
    else:
        exact = np.linspace(0, len(numbers) - 1, count)
        places = (exact if spacing == "ends_down" else exact.round()).astype(int).tolist()
    return [numbers[place] for place in places]


def of_one_size(frames: Sequence[np.ndarray], resample: Resample) -> list[np.ndarray]:
    """Return the frames, uint8 (H, W, 3) each, in the size of the first."""
    height, width = frames[0].shape[:2]
    return [resize(frame, height, width, resample) for frame in frames]
