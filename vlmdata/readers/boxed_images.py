"""Put boxes and their labels, in any form, into the fields of an image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vlmdata.images.box_geometry import pixels
from vlmdata.readers.box_forms import BoxForm, corners_in, is_in_pixels
from vlmdata.readers.stated_values import Box, box
from vlmdata.readers.strings import clean, is_blank


def with_boxes(
    image: Mapping[str, Any], boxes: Sequence[Any], labels: Sequence[str | None], form: BoxForm, others: Counter[str]
) -> dict[str, Any]:
    """Return an image with boxes and a label for each. Boxes that cannot be used are left out and counted in `others`.

    Pixels are those of the upright image. Boxes in parts of its sides become `original_boxes`, and pixels too if the image's
    `width` and `height` are known. If they are not, the boxes become pixels when the image is fetched.
    """
    size: tuple[Any, Any] = (1, 1)
    if is_in_pixels(form):
        size = (image.get("width") or image.get("original_width"), image.get("height") or image.get("original_height"))
    kept: list[Box] = []
    said: list[str | None] = []
    for one, label in zip(boxes, labels, strict=True):
        found = corners_in(form, one) if box(one) is not None else None
        if fault := _fault(found, size):
            others[fault] += 1
        elif found is not None:
            kept.append(found)
            said.append(None if label is None or is_blank(label) else clean(" ".join(label.split())))
    place: dict[str, Any] = {"box_labels": said if any(said) else None}
    if is_in_pixels(form):
        place["boxes"] = kept or None
    elif kept:
        place["original_boxes"] = kept
        if image.get("width") and image.get("height"):
            place["boxes"] = pixels(kept, image["width"], image["height"])
    return {**image, **place}


def _fault(found: Box | None, size: tuple[Any, Any]) -> str | None:
    if found is None or not all(map(math.isfinite, found)):
        return "bad_box"
    if found[2] <= found[0] or found[3] <= found[1]:
        return "box_without_area"
    lows = zip(found[:2], size, strict=True)
    is_outside = found[2] <= 0 or found[3] <= 0 or any(side and low >= side for low, side in lows)
    return "box_outside_picture" if is_outside else None
