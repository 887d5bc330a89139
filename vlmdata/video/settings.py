"""What the decoder of a video is asked to do, and the error for a video that cannot be used."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Scenes = Literal["none", "first", "middle"]


class VideoError(ValueError):
    """Raised for a video that cannot be used. `reason` goes into the ledger, with `value` and `threshold` if a limit is hit."""

    def __init__(self, reason: str, problem: str, value: float | None = None, threshold: float | None = None) -> None:
        super().__init__(problem)
        self.reason, self.value, self.threshold = reason, value, threshold


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """Which frames of a video are taken, how they are stored, and the limits of the decoder.

    One of the three ways to choose frames applies: scenes if `scenes` is not "none", else `count` if it is not None, else
    `every_s`. If `clip_s` is not None, `count` and `max_frames` apply to each clip of this length and not to the whole video.
    """

    every_s: float = 1.0
    count: int | None = None
    scenes: Scenes = "none"
    clip_s: float | None = None
    max_frames: int = 768
    size: int = 768  # longest side of a stored frame, in pixels
    format: Literal["jpeg", "png"] = "jpeg"
    quality: int = 90
    min_distance: int = 32  # bits of PDQ; 0 keeps all frames
    subtitles: bool = True
    language: str = ""
    max_pixels: int = 40_000_000
    max_cost: int = 400_000
    max_memory_mb: int = 2_000

    def as_json(self) -> dict[str, Any]:
        """Return the settings as JSON values, from which `FrameSettings(**values)` makes them again."""
        return asdict(self)
