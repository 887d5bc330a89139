"""Turns a decoded frame into upright sRGB pixels: scaled, with square pixels, rotated, HDR mapped to the usual range."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from vlmdata.extras import required
from vlmdata.images.resize import fitted
from vlmdata.video.tone_map import HLG, PQ, tone_mapped

_LEAST, _MOST = Fraction(1, 10), Fraction(10)  # other shapes of a pixel are errors of the header
_KNOWN_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # matrix coefficients in H.273 -> swscale's number


class Scaler:
    """Scales frames in one thread. `frame.reformat` would leave the threads of a scaler for each frame (PyAV 18.1)."""

    def __init__(self) -> None:
        self._reformatter = required("av", "source video").video.reformatter.VideoReformatter()

    def __call__(self, frame: Any, width: int, height: int, format: str, matrix: int | None = None) -> np.ndarray:
        """Return a frame as (height, width, 3). `matrix` is swscale's number of the colour matrix; None: the frame's own."""
        scaled = self._reformatter.reformat(
            frame, width, height, format, src_colorspace=matrix, dst_colorspace=matrix, interpolation="AREA",
            dst_color_range="JPEG", threads=1,
        )  # fmt: skip
        pixels: np.ndarray = scaled.to_ndarray()
        return pixels


def upright(frame: Any, shape: Fraction | None, side: int, scale: Scaler) -> np.ndarray:
    """Return a frame as (H, W, 3) uint8 sRGB whose longer side is at most `side` pixels.

    `shape` is the width of a pixel divided by its height. A frame with pixels that are not square is enlarged in one direction.
    """
    width, height = shown_size(frame.width, frame.height, shape)
    width, height = fitted(width, height, side)
    matrix = _KNOWN_MATRICES.get(int(frame.colorspace), 1 if frame.height >= 720 else 5)  # unknown: as most players guess
    is_hdr = int(frame.color_trc) in (PQ, HLG)
    pixels = scale(frame, width, height, "rgb48le" if is_hdr else "rgb24", matrix)
    if is_hdr:
        pixels = tone_mapped(pixels, int(frame.color_trc))
    return turned(pixels, display_matrix(frame))


def shown_size(width: int, height: int, shape: Fraction | None) -> tuple[int, int]:
    """Return the (width, height) of a frame with square pixels, in pixels, before it is rotated."""
    if not shape or not _LEAST <= shape <= _MOST:
        return width, height
    return (round(width * shape), height) if shape > 1 else (width, round(height / shape))


def display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """Return the entries a, b, c, d of the frame's display matrix, or None if it has none.

    A point (x, y) of the stored frame is shown at (ax + cy, bx + dy), moved into view.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    entries = np.frombuffer(bytes(data), np.int32)
    return (int(entries[0]), int(entries[1]), int(entries[3]), int(entries[4])) if len(entries) == 9 else None


def turned(pixels: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    """Return (H, W, 3) pixels rotated and mirrored as a display matrix says, to the nearest quarter turn."""
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels = pixels.transpose(1, 0, 2)
        a, d = c, b
    pixels = pixels[:, ::-1] if a < 0 else pixels
    pixels = pixels[::-1] if d < 0 else pixels
    return np.ascontiguousarray(pixels)
