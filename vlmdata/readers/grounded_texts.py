"""Read from a sample's JSON which words stand for which boxes, and how its boxes lie in the original of the image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vlmdata.grounding.spans import Grounding, read_grounding
from vlmdata.images.box_geometry import has_place

FARTHEST = 1e6  # of an edge of a view; a border of a million times the picture is a mistake


def geometry(facts: Mapping[str, Any], boxes: Sequence[Any] | None) -> dict[str, Any]:
    """Return the fields `original_boxes` and `view` in the JSON of an image, as fields of IMAGE.

    `boxes` are the boxes that were read from the same JSON. If one of the two fields is there and cannot be right, the result
    is empty: a view alone or boxes alone would say something else about the image.
    """
    originals, view = facts.get("original_boxes"), facts.get("view")
    if originals is not None and not _are_original(originals, boxes, facts.get("boxes")):
        return {}
    if view is not None and not _is_view(view):
        return {}
    found = {
        "original_boxes": originals and [None if box is None else [float(edge) for edge in box] for box in originals],
        "view": view and [float(edge) for edge in view],
    }
    return {name: value for name, value in found.items() if value is not None}


def _are_original(value: Any, boxes: Sequence[Any] | None, stated: Any) -> bool:
    """Return whether a value is a list of fractions of the original for the boxes of an image, none of which is left out."""
    count = len(boxes or ())
    if not isinstance(value, list) or not isinstance(stated, list) or not len(value) == len(stated) == count > 0:
        return False
    return all(box is None or (_is_part(box) and min(box) >= 0 and max(box) <= 1) for box in value)


def _is_view(value: Any) -> bool:
    return _is_part(value) and max(map(abs, value)) <= FARTHEST


def _is_part(value: Any) -> bool:
    """Return whether a value is a list of x0, y0, x1, y1 with an area."""
    if not isinstance(value, list) or not all(type(edge) in (int, float) and _is_finite(edge) for edge in value):
        return False
    return has_place(value) and value[2] > value[0] and value[3] > value[1]


def _is_finite(edge: float) -> bool:
    return abs(edge) < math.inf and abs(edge) < 1e300  # an integer of JSON may be too large for a float


def pair_grounding(value: Any, row: Mapping[str, Any]) -> str | None:
    """Return the field `grounding` of the text of a caption pair, from the value in its sample's JSON, or None.

    The image of each span is 0. The result is None if a span does not fit the text, or names a box that the image lacks.
    """
    images, texts = ([one for one in row.get(name) or () if one] for name in ("images", "texts"))
    if len(images) != 1 or len(texts) != 1 or value is None:
        return None
    place = [image is not None for image in row["images"]].index(True)
    found = read_grounding(value, texts[0].get("text"))
    if found is None or place != 0 or not _is_said(value, found) or not _fits(found, [images[0]]):
        return None
    return found.dump()


def document_groundings(facts: Mapping[str, Any], row: Mapping[str, Any]) -> list[str | None] | None:
    """Return the field `grounding` for each position of a document, from its sample's JSON, or None if it cannot be right.

    The positions of the row must be those of the lists in the JSON.
    """
    stated, texts = facts.get("grounding"), row["texts"]
    if not isinstance(stated, list) or len(stated) != len(texts):
        return None
    groundings: list[str | None] = []
    for value, text in zip(stated, texts, strict=True):
        found = read_grounding(value, text and text["text"])
        if value is not None and (found is None or not _is_said(value, found) or not _fits(found, row["images"])):
            return None
        groundings.append(None if found is None else found.dump())
    return groundings


def _is_said(value: Any, found: Grounding) -> bool:
    """Return whether the whole value was read: no span is invalid."""
    return bool(value == found.as_json())


def _fits(found: Grounding, images: Sequence[Mapping[str, Any] | None]) -> bool:
    """Return whether each span names an image and boxes that are there."""
    counts = [None if image is None else len(image.get("boxes") or ()) for image in images]
    return all(
        span.image < len(counts) and (count := counts[span.image]) is not None and all(one < count for one in span.boxes)
        for span in found.spans
    )
