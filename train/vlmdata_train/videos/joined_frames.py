"""The abstractor reads all frames of a video together, so that a video has as many features as an image, as in Flamingo.

Source: Alayrac et al. 2022, Flamingo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vlmdata_train.model.encoder_facts import Region
from vlmdata_train.videos.frames import Frames


@dataclass(frozen=True)
class JoinedFrames(Frames):
    """Frames for an abstractor such as `perceiver: {frames: 8}`. Flamingo reads 1 frame per second, 8 in training."""

    joins_frames: ClassVar[bool] = True

    def regions(self, times: Sequence[float], width: int, height: int, plan: Any) -> list[Region]:
        """Return one region, which has the features of the whole video."""
        return super().regions(times, width, height, plan)[:1]

    def seconds(self, times: Sequence[float]) -> list[float]:
        """Return the time of the first frame."""
        return list(times[:1])

    def tile_times(self, times: Sequence[float]) -> list[float]:
        """Return the time of each frame."""
        return list(times)
