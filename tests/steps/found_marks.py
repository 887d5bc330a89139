"""Finds marks in decoded pictures by their colours. It shares no code with the step that draws them."""

from __future__ import annotations

import re

import cv2
import numpy as np

Edges = tuple[int, int, int, int]
HUES = {  # degrees, from and to
    "red": (-11, 12),
    "orange": (18, 46),
    "yellow": (50, 70),
    "green": (100, 150),
    "cyan": (165, 195),
    "blue": (220, 258),
    "purple": (275, 305),
    "pink": (318, 346),
}


def hsv(pixels: np.ndarray) -> np.ndarray:
    """Return hue in degrees, saturation and value (0..1) of (H, W, 3) uint8 pixels."""
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)


def of_colour(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return where a picture has a saturated colour of this name, as (H, W) uint8 of 0 and 1."""
    hue, saturation, value = np.moveaxis(hsv(pixels), -1, 0)
    low, high = HUES[name]
    is_hue = (hue - low) % 360 <= high - low
    return (is_hue & (saturation > 0.5) & (value > 0.5)).astype(np.uint8)


def largest(mask: np.ndarray) -> tuple[Edges, np.ndarray]:
    """Return the edges x0, y0, x1, y1 of the largest connected part of a mask, and this part."""
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    assert len(stats) > 1, "nothing has this colour"
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    x, y, wide, high, _ = (int(one) for one in stats[best])
    return (x, y, x + wide, y + high), labels == best


def found(pixels: np.ndarray, name: str) -> Edges:
    """Return the edges of the largest thing of a colour in a picture."""
    return largest(of_colour(pixels, name))[0]


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a picture that changed, other than by being a JPEG of quality 95."""
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(before[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    before = cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]
    return largest((np.abs(after.astype(int) - before.astype(int)).max(axis=2) > 60).astype(np.uint8))[1]


def name_of_change(before: np.ndarray, after: np.ndarray) -> str:
    """Return the name of the most frequent hue in the largest part that changed."""
    hues = hsv(after)[changed(before, after)]
    hues = hues[hues[:, 1] > 0.5][:, 0]
    votes = {name: int(((hues - low) % 360 <= high - low).sum()) for name, (low, high) in HUES.items()}
    return max(votes, key=lambda name: votes[name])


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the intersection over union of two boxes."""
    wide = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    high = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return wide * high / (areas - wide * high)


def tip_of(part: np.ndarray) -> tuple[float, float]:
    """Return the tip of an arrow, the part of a mask: the end of the half that has more pixels, as the head is wide."""
    ys, xs = np.nonzero(part)
    points = np.stack([xs, ys], axis=1).astype(float) + 0.5
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    axis = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
    along = (points - centre) @ axis
    middle = (along.min() + along.max()) / 2
    end = along.argmax() if (along > middle).sum() > (along < middle).sum() else along.argmin()
    return float(points[end][0]), float(points[end][1])


def colour_in(question: str) -> str:
    """Return the only name of a colour in a question."""
    (name,) = {word for word in re.findall(r"[a-z]+", question) if word in HUES}
    return name
