"""Resizes images, and converts boxes to pixels of the resized image.

The modes have the same names and output sizes as in img2dataset. Shrinking is by area average, the only filter of cv2 that
gives the same bytes on every processor. Enlarging is bilinear in integers for the same reason, although img2dataset uses
Lanczos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np

from vlmdata.images.box_geometry import has_place
from vlmdata.parameters import Doc

cv2.setNumThreads(1)  # a worker has one core, for which more threads would compete

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
Mode = Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"]
MODES = ("no", "border", "keep_ratio", "keep_ratio_largest", "center_crop")
FORMATS = ("jpeg", "png", "webp")


@dataclass(frozen=True)
class ResizeRule:
    """How images are resized and encoded."""

    mode: Annotated[
        Mode,
        Doc(
            "What becomes `size`. keep_ratio: the short side. keep_ratio_largest: the long side. center_crop: the "
            "short side, then the image is cropped to the central square. border: the long side, then a white border "
            "makes the image square. no: nothing.",
            source="img2dataset",
        ),
    ] = "border"
    size: Annotated[
        int, Doc("Side of the resized image. `mode` says which side.", unit="pixels, 1 to 16383", source="img2dataset")
    ] = 256
    only_if_bigger: Annotated[
        bool, Doc("Whether an image stays as it is, without crop or border, if that side is not longer than `size`.")
    ] = False
    skip_reencode: Annotated[
        bool, Doc("Whether an unchanged image keeps its original bytes, including metadata such as a location.")
    ] = False
    format: Annotated[
        Literal["jpeg", "png", "webp"], Doc("Format of the stored images. PNG is lossless.", source="img2dataset")
    ] = "jpeg"
    quality: Annotated[int, Doc("Quality of JPEG and WebP.", unit="1 to 100", source="img2dataset")] = 95

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"the resize mode must be one of {', '.join(MODES)}, not {self.mode!r}")
        if self.format not in FORMATS:
            raise ValueError(f"the image format must be one of {', '.join(FORMATS)}, not {self.format!r}")
        if not 1 <= self.size <= 16383:
            raise ValueError(f"the resize size must be 1 to 16383 pixels (the maximum of WebP), not {self.size}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"the image quality must be 1 to 100, not {self.quality}")


@dataclass(frozen=True, slots=True)
class Transform:
    """The geometry of a resize: `source` is scaled to `scaled`, then placed at (left, top) on a canvas of the size `output`.

    Sizes are (width, height) in pixels. Negative values of `left` and `top` crop the image. Positive values leave a white
    border.
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    output: tuple[int, int]
    left: int = 0
    top: int = 0

    def boxes(self, boxes: Sequence[Box | None]) -> list[Box | None]:
        """Return boxes in pixels of the upright original, converted to pixels of the output and cut at both edges.

        The result has one entry for each input box, in order. It is None for a box that is entirely outside of the original or
        the output, and for None: a box that an earlier crop removed. A box without a known place is returned unchanged, see
        `box_geometry`.
        """
        x_scale, y_scale = self.scaled[0] / self.source[0], self.scaled[1] / self.source[1]
        return [None if box is None else self._box(box, x_scale, y_scale) for box in boxes]

    def _box(self, box: Box, x_scale: float, y_scale: float) -> Box | None:
        if not has_place(box):
            return box
        x0, x1 = (_cut(_cut(x, self.source[0]) * x_scale + self.left, self.output[0]) for x in (box[0], box[2]))
        y0, y1 = (_cut(_cut(y, self.source[1]) * y_scale + self.top, self.output[1]) for y in (box[1], box[3]))
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def view(self) -> Box | None:
        """Return the part of the source that the output shows: x0, y0, x1, y1 as fractions of the source's sides.

        It reaches below 0 or above 1 where the output has a border. None: the output shows exactly the whole source.
        """
        if self.left == self.top == 0 and self.scaled == self.output:
            return None
        (width, height), (right, bottom) = self.scaled, (self.output[0] - self.left, self.output[1] - self.top)
        return -self.left / width, -self.top / height, right / width, bottom / height


def _cut(edge: float, side: float) -> float:
    return min(max(edge, 0.0), float(side))


def transform(rule: ResizeRule, width: int, height: int) -> Transform:
    """Return the geometry of `rule` for an upright image of this size."""
    source = width, height
    side = min(source) if rule.mode in ("keep_ratio", "center_crop") else max(source)
    if rule.mode == "no" or (rule.only_if_bigger and side <= rule.size):
        return Transform(source, source, source)
    scale = rule.size / side
    scaled = max(1, round(width * scale)), max(1, round(height * scale))
    if rule.mode not in ("center_crop", "border"):
        return Transform(source, scaled, scaled)
    square = rule.size, rule.size
    # If an odd number of pixels is cropped or added, the left and the top get one pixel less than the right and the bottom.
    offset = -((scaled[0] - rule.size) // 2), -((scaled[1] - rule.size) // 2)
    if rule.mode == "border":
        offset = (rule.size - scaled[0]) // 2, (rule.size - scaled[1]) // 2
    return Transform(source, scaled, square, *offset)


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the (width, height) of an image that is scaled down, if necessary, to a longer side of at most `side` pixels."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def scale_to(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W, 3) uint8 pixels resized to (width, height).

    Shrinking is by area average, and enlarging is bilinear in integers.
    """
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    is_smaller = size[0] <= width and size[1] <= height
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR_EXACT)


def crop_or_pad(pixels: np.ndarray, change: Transform) -> np.ndarray:
    """Return scaled pixels, cropped to the output size or extended to this size with a white border."""
    width, height = change.output
    if pixels.shape[:2] == (height, width):
        return pixels
    if change.left <= 0 and change.top <= 0:
        cut = pixels[-change.top : height - change.top, -change.left : width - change.left]
        return np.ascontiguousarray(cut)
    canvas = np.full((height, width, 3), 255, np.uint8)
    canvas[change.top : change.top + pixels.shape[0], change.left : change.left + pixels.shape[1]] = pixels
    return canvas


def resize(pixels: np.ndarray, rule: ResizeRule) -> np.ndarray:
    """Return (H, W, 3) uint8 pixels resized by `rule`, or the same array if nothing changes."""
    change = transform(rule, pixels.shape[1], pixels.shape[0])
    return crop_or_pad(scale_to(pixels, change.scaled), change)
