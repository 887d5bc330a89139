"""Boxes as fractions of the upright original, and the part of the original that a stored image shows.

A box with its right or lower edge before the other one (perhaps x, y, width and height) has no known place. The same holds for
a box with an edge that is no number. Such a box never becomes None, because a face in it would then count as cut off. Every
resize returns it unchanged, so that whatever blurs faces sees that it does not know where the face is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Box = tuple[float, float, float, float]  # x0, y0, x1, y1
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
LEAST = 1e-9  # a smaller difference of two fractions is an error of rounding


def has_place(box: Sequence[float | None]) -> bool:
    """Return whether a box has four finite edges, none of them before the opposite one. Its area may be 0."""
    values = [math.nan if edge is None else edge for edge in box]
    return len(values) == 4 and all(map(math.isfinite, values)) and values[2] >= values[0] and values[3] >= values[1]


def fractions(boxes: Sequence[Sequence[float] | None], width: int, height: int) -> list[Box | None]:
    """Return boxes in pixels of an image of this size as fractions of its sides, cut at its edges.

    The result has one entry for each input box, in order. It is None for None, for a box without a known place, and for a box
    of which no area lies inside the image.
    """
    return [None if box is None else _fraction(box, width, height) for box in boxes]


def _fraction(box: Sequence[float], width: int, height: int) -> Box | None:
    if not has_place(box):
        return None
    x0, y0, x1, y1 = (min(max(edge / side, 0.0), 1.0) for edge, side in zip(box, (width, height) * 2, strict=True))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def pixels(boxes: Sequence[Sequence[float] | None], width: int, height: int) -> list[list[float] | None]:
    """Return boxes in fractions of an image's sides as pixels of an image of this size, with one entry for each input box."""
    return [
        None if box is None else [edge * side for edge, side in zip(box, (width, height) * 2, strict=True)] for box in boxes
    ]


def has_only_fractions(image: Mapping[str, Any]) -> bool:
    """Return whether an image has `original_boxes` of its source, and no `boxes`, because its size was not known."""
    return image["boxes"] is None and bool(image["original_boxes"]) and image["view"] is None and image["phash"] is None


def part_of(view: Sequence[float] | None, part: Sequence[float] | None) -> Box | None:
    """Return `part`, which is a part of an image, as a part of this image's original, of which the image shows `view`.

    All are fractions: x0, y0, x1, y1. None stands for the whole, also in the result.
    """
    x0, y0, x1, y1 = view or WHOLE
    a, b, c, d = part or WHOLE
    wide, high = x1 - x0, y1 - y0
    found = x0 + a * wide, y0 + b * high, x0 + c * wide, y0 + d * high
    return None if all(abs(edge - whole) < LEAST for edge, whole in zip(found, WHOLE, strict=True)) else found


def composed(
    before: Mapping[str, Any], original_boxes: Sequence[Box | None], view: Box | None
) -> dict[str, Sequence[Sequence[float] | None] | Sequence[float] | None]:
    """Return the fields `original_boxes` and `view` of an image after a resize of the image with the fields `before`.

    `original_boxes` are the image's boxes as fractions of its pixels before the resize, and `view` is the part of these pixels
    that the resize has kept. If no image was stored before, these pixels are the original. If one was stored and what it shows
    is not known, both fields are None, because nobody knows. An empty list of boxes says that the part is known.
    """
    if before["original_boxes"] is not None or before["view"] is not None:
        return {"original_boxes": before["original_boxes"], "view": part_of(before["view"], view)}
    if _is_original(before):
        return {"original_boxes": list(original_boxes), "view": view}
    return {"original_boxes": None, "view": None}


def _is_original(image: Mapping[str, Any]) -> bool:
    """Return whether the image is as it was fetched: it has no hash of stored pixels, and no other size than the original."""
    size, original = ((image[f"{which}width"], image[f"{which}height"]) for which in ("", "original_"))
    return image["phash"] is None and (None in size or None in original or size == original)
