"""Shapes of marks that are drawn on pictures: boxes, ellipses, triangles, points, arrows and numbers.

A shape is a stroke: the pixels that it covers, with a weight for the soft pixels at its border. Corners are rounded to
sixteenths of a pixel and filled by cv2 in integers, so the same mark gives the same pixels on every processor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vlmdata.images.resize import Box

Points = Sequence[tuple[float, float]]
SHIFT = 4  # bits of a fraction of a pixel
SOFT = 0.65  # pixels by which cv2's soft border widens what it fills, on each side; measured
CORNERS = 96  # of the polygon that stands for an ellipse
HEAD = 4.0  # length of an arrow's head, as a multiple of its thickness
HEAD_WIDTH = 3.4  # width of an arrow's head, as a multiple of its thickness
DIGITS = {  # 5 x 7 pixels, a row of bits for each line
    1: (0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110),
    2: (0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111),
    3: (0b11110, 0b00001, 0b00001, 0b01110, 0b00001, 0b00001, 0b11110),
    4: (0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010),
    5: (0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110),
    6: (0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110),
    7: (0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000),
    8: (0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110),
    9: (0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100),
}
TAG = (9, 11)  # width and height of a number's tag, in pixels of its digit


@dataclass(frozen=True)
class Stroke:
    """The pixels that a mark covers: `mask` (h, w) uint8, 255 where the mark hides the picture, from (`left`, `top`)."""

    mask: np.ndarray
    left: int
    top: int

    def inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of the picture that the mark covers, in an order that is always the same."""
        rows, columns = np.nonzero(self.mask)
        return rows + self.top, columns + self.left

    def solid(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of the picture where the mark is not soft."""
        rows, columns = np.nonzero(self.mask == 255)
        return rows + self.top, columns + self.left

    def weights(self) -> np.ndarray:
        """Return the weight of each pixel of `inside`, 1 to 255."""
        return self.mask[np.nonzero(self.mask)]


def outer(box: Box, thickness: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the outer edges of a frame around a box, in whole pixels of the picture.

    Half of the thickness lies outside of the box. At an edge of the picture the frame lies within the picture.
    """
    x0, y0, x1, y1 = box
    half = thickness / 2
    edges = (math.floor(x0 - half + 0.5), math.floor(y0 - half + 0.5), math.floor(x1 + half + 0.5), math.floor(y1 + half + 0.5))
    return max(edges[0], 0), max(edges[1], 0), min(edges[2], width), min(edges[3], height)


def box_stroke(box: Box, thickness: int, width: int, height: int) -> Stroke:
    """Return a rectangle around a box. `width` and `height` are the picture's, here and below."""
    x0, y0, x1, y1 = outer(box, thickness, width, height)
    mask = np.full((y1 - y0, x1 - x0), 255, np.uint8)
    mask[thickness : y1 - y0 - thickness, thickness : x1 - x0 - thickness] = 0
    return Stroke(mask, x0, y0)


def ellipse_stroke(box: Box, thickness: int, width: int, height: int) -> Stroke:
    """Return an ellipse that touches the four sides of a box."""
    x0, y0, x1, y1 = outer(box, thickness, width, height)
    rings = [_ellipse((x0 + by, y0 + by, x1 - by, y1 - by)) for by in (SOFT, thickness + SOFT)]
    return _filled([(rings[0], 255), (rings[1], 0)], width, height)


def _ellipse(box: Sequence[float]) -> Points:
    x, y, a, b = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    angles = (2 * math.pi * n / CORNERS for n in range(CORNERS))
    return [(x + a * math.cos(angle), y + b * math.sin(angle)) for angle in angles]


def triangle_stroke(box: Box, thickness: int, width: int, height: int) -> Stroke:
    """Return a triangle that stands in a box: its tip is at the middle of the top, its base is the bottom."""
    x0, y0, x1, y1 = outer(box, thickness, width, height)
    corners = [((x0 + x1) / 2, float(y0)), (float(x1), float(y1)), (float(x0), float(y1))]
    base, side = x1 - x0, math.hypot((x1 - x0) / 2, y1 - y0)
    radius = base * (y1 - y0) / (base + 2 * side)  # of the circle within
    x, y = (x0 + x1) / 2, y1 - radius

    def smaller(by: float) -> Points:
        share = (radius - by) / radius  # around the same centre, so that all sides are `by` pixels further in
        return [(x + (px - x) * share, y + (py - y) * share) for px, py in corners]

    return _filled([(smaller(SOFT), 255), (smaller(thickness + SOFT), 0)], width, height)


def point_stroke(x: float, y: float, radius: float, width: int, height: int) -> Stroke:
    """Return a filled disc."""
    by = radius - SOFT
    return _filled([(_ellipse((x - by, y - by, x + by, y + by)), 255)], width, height)


def arrow_stroke(tail: tuple[float, float], tip: tuple[float, float], thickness: int, width: int, height: int) -> Stroke:
    """Return an arrow with a filled head. It must be longer than its head."""
    (x0, y0), (x1, y1) = tail, tip
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    neck = x1 - dx * HEAD * thickness, y1 - dy * HEAD * thickness

    def across(at: tuple[float, float], by: float) -> tuple[float, float]:
        return at[0] - dy * by, at[1] + dx * by

    half, wide = thickness / 2 - SOFT, HEAD_WIDTH * thickness / 2 - SOFT
    shaft = [across(tail, half), across(neck, half), across(neck, -half), across(tail, -half)]
    head = [(x1 - dx * SOFT, y1 - dy * SOFT), across(neck, wide), across(neck, -wide)]
    return _filled([(shaft, 255), (head, 255)], width, height)


def _filled(polygons: Sequence[tuple[Points, int]], width: int, height: int) -> Stroke:
    """Return polygons, one over the other, each filled with its weight. Their parts outside of the picture are left out."""
    xs = [x for points, _ in polygons for x, _ in points]
    ys = [y for points, _ in polygons for _, y in points]
    left, top = max(0, math.floor(min(xs)) - 1), max(0, math.floor(min(ys)) - 1)
    right, bottom = min(width, math.ceil(max(xs)) + 1), min(height, math.ceil(max(ys)) + 1)
    mask = np.zeros((max(bottom - top, 0), max(right - left, 0)), np.uint8)
    for points, weight in polygons if mask.size else ():
        # cv2 counts from the middle of the first pixel
        corners = [[round((x - left - 0.5) * 2**SHIFT), round((y - top - 0.5) * 2**SHIFT)] for x, y in points]
        cv2.fillPoly(mask, [np.array(corners, np.int32)], weight, cv2.LINE_AA, SHIFT)
    return Stroke(mask, left, top)


def tag_size(longest: int) -> tuple[int, int]:
    """Return the width and height of a number's tag on a picture whose longer side is `longest`, in pixels."""
    scale = _digit_pixels(longest)
    return TAG[0] * scale, TAG[1] * scale


def _digit_pixels(longest: int) -> int:
    return max(2, round(longest * 0.0035))


def number_tag(number: int, left: int, top: int, longest: int) -> tuple[Stroke, Stroke]:
    """Return a filled tag whose upper left corner is given, and the digit 1 to 9 on it."""
    width, height = tag_size(longest)
    scale = _digit_pixels(longest)
    bits = np.array([[row >> (4 - column) & 1 for column in range(5)] for row in DIGITS[number]], np.uint8) * 255
    digit = np.kron(bits, np.ones((scale, scale), np.uint8))
    return Stroke(np.full((height, width), 255, np.uint8), left, top), Stroke(digit, left + 2 * scale, top + 2 * scale)


def outline(stroke: Stroke, by: int, width: int, height: int) -> Stroke:
    """Return a stroke that reaches `by` pixels further on all sides, and not outside of the picture."""
    mask = np.pad(stroke.mask, by)
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1)))
    left, top = stroke.left - by, stroke.top - by
    cut = mask[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    return Stroke(cut, max(left, 0), max(top, 0))


def blend(pixels: np.ndarray, stroke: Stroke, colour: Sequence[int], alpha: int) -> None:
    """Draw a stroke on (H, W, 3) uint8 pixels in place. `alpha` 255 hides the picture, 0 draws nothing."""
    at = stroke.inside()
    pixels[at] = blended(pixels[at], stroke.weights(), colour, alpha)


def blended(under: np.ndarray, weights: np.ndarray, colour: Sequence[int], alpha: int) -> np.ndarray:
    """Return the colours (N, 3) of pixels with a mark over them. All arithmetic is in integers."""
    weight = ((weights.astype(np.int32) * alpha + 127) // 255)[:, None]
    return ((under * (255 - weight) + np.array(colour, np.int32) * weight + 127) // 255).astype(np.uint8)
