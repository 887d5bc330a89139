"""The boxes of an image as fractions of the stored image, and the share of each that the stored image shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vlmdata.grounding.spans import Box
from vlmdata.images.box_geometry import WHOLE, fractions

MOST = 1e9  # pixels; an edge beyond this is no edge of a box, and an integer of a thousand digits is no float


class StoredBox(NamedTuple):
    """A box of a stored image: its place as fractions of the image's sides, cut at its edges, and the share that is visible.

    `visible` is the part of the object's box in the original that the stored image shows, above 0 and at most 1. It is 1 if it
    is not known.
    """

    place: Box
    visible: float = 1.0


def stored_boxes(image: Mapping[str, Any]) -> list[StoredBox | None] | None:
    """Return the boxes of an image of a row, or of the facts about an image in a sample's JSON, aligned with its `boxes`.

    An entry is None if the stored image does not show the box, or if its place is not known because an edge lies before the
    opposite one. The result is None if the size of the stored image is not known, and empty if the image has no boxes.
    """
    boxes, width, height = image.get("boxes") or [], image.get("width"), image.get("height")
    if not width or not height:
        return None
    originals = image.get("original_boxes") or []
    if len(originals) != len(boxes):  # nothing is known about the original
        originals = [None] * len(boxes)
    shown = _area(image.get("view") or WHOLE)
    return [
        None if place is None else StoredBox(place, 1.0 if whole is None else _share(_area(place) * shown, _area(whole)))
        for place, whole in zip(fractions(boxes, width, height), originals, strict=True)
    ]


def fractions_of(boxes: Any, width: int, height: int) -> list[Box | None]:
    """Return the value of `boxes` in a sample's JSON, in pixels of an image of this size, as fractions of it, cut at its edges.

    The result is aligned with the boxes. What is no box with an area in the image is None, and what is no list is empty.
    """
    return fractions([one if _is_box(one) else None for one in boxes], width, height) if isinstance(boxes, list) else []


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(type(one) in (int, float) and abs(one) < MOST for one in value)


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _share(seen: float, whole: float) -> float:
    """Return which share of an area is seen, above 0 and at most 1. A share that cannot be right is 1."""
    return min(seen / whole, 1.0) if 0 < seen < math.inf and whole > 0 else 1.0
