"""Finds the scenes of a video by the change of content from frame to frame.

The rule is that of PySceneDetect's ContentDetector: a frame begins a scene if hue, saturation and brightness (0 to 255, hue 0
to 179) differ from those of the frame before by at least 27 on average, and the scene before is at least 0.6 s long.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from vlmdata.images.resize import fitted
from vlmdata.video.frame_stream import FrameStream, Timed
from vlmdata.video.picture import Scaler

THRESHOLD = 27.0  # PySceneDetect's default
MIN_SCENE_S = Fraction(3, 5)  # default of PySceneDetect's command line
SIDE = 256  # pixels; PySceneDetect compares copies of about this width
CANDIDATES = 16  # frames of a scene that are kept to choose its middle


def content(frame: Any, scale: Scaler) -> np.ndarray:
    """Return a small copy of a frame as (H, W, 3) int16 of hue, saturation and brightness."""
    width, height = fitted(frame.width, frame.height, SIDE)
    pixels = scale(frame, width, height, "rgb24")
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(np.int16)


def scene_frames(stream: FrameStream, which: str) -> Iterator[Timed]:
    """Yield one frame of each scene: its first, or the one that is nearest to its middle (within 1/16 of the scene's length).

    `which` is "first" or "middle". At most 16 frames are in memory.
    """
    scene, scale = _Scene(), Scaler()
    before: np.ndarray | None = None
    while (one := stream.next()) is not None:
        now = content(one.frame, scale)
        changed = before is not None and (before.shape != now.shape or float(np.abs(now - before).mean()) >= THRESHOLD)
        if changed and one.time - scene.start >= MIN_SCENE_S:
            yield scene.chosen(which, one.time)
            scene = _Scene()
        scene.add(one)
        before = now
    if scene.frames:
        yield scene.chosen(which, scene.last + stream.gap)


class _Scene:
    """The frames of a scene that may be chosen: every n-th, where n doubles whenever there are 16 of them."""

    def __init__(self) -> None:
        self.frames: list[Timed] = []
        self.start = self.last = Fraction(0)
        self._seen, self._every = 0, 1

    def add(self, one: Timed) -> None:
        if not self._seen:
            self.start = one.time
        self.last = one.time
        if self._seen % self._every == 0:
            self.frames.append(one)
            if len(self.frames) == CANDIDATES:
                self.frames, self._every = self.frames[::2], 2 * self._every
        self._seen += 1

    def chosen(self, which: str, end: Fraction) -> Timed:
        middle = (self.start + end) / 2
        return self.frames[0] if which == "first" else min(self.frames, key=lambda one: abs(one.time - middle))
