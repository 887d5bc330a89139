"""What a model that sees no picture is given about it: lines of captions, and lines of labelled boxes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlmdata.generation.captions import own_text, shortened
from vlmdata.readers.strings import clean, is_blank

LABEL_WORDS = 8  # of a box's label; the label of a dataset is a noun


def captions_of(row: Mapping[str, Any], most: int, words: int) -> list[str]:
    """Return the row's text and its alternatives, each on one line and with at most `words` words.

    Blank ones and repetitions are left out, and at most `most` are returned.
    """
    text = own_text(row) or {}
    lines = (shortened(clean(one or ""), words) for one in (text.get("text"), *(text.get("alternatives") or ())))
    return list(dict.fromkeys(line for line in lines if not is_blank(line)))[:most]


def labels_of(row: Mapping[str, Any]) -> list[str]:
    """Return the label of each box of the row's image, on one line. A box without a label or an area is left out."""
    return [label for _, label in _labelled(row)]


def box_lines(row: Mapping[str, Any], most: int) -> list[str]:
    """Return `name: [x1, y1, x2, y2]` for the first `most` labelled boxes of the row's image.

    The numbers are fractions of the picture's width and height, 0 to 1, with three decimals. A box that has no area within the
    picture is left out. If the size of the picture is not known, there are no lines.
    """
    image = _image(row)
    width, height = (image or {}).get("width"), (image or {}).get("height")
    if not width or not height:
        return []
    lines: list[str] = []
    for box, label in _labelled(row):
        if len(lines) == most:
            break
        x0, y0, x1, y1 = (min(max(one / side, 0.0), 1.0) for one, side in zip(box, (width, height) * 2, strict=True))
        if x1 > x0 and y1 > y0:
            lines.append(f"{label}: [{x0:.3f}, {y0:.3f}, {x1:.3f}, {y1:.3f}]")
    return lines


def _image(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((image for image in row["images"] or () if image is not None), None)


def _labelled(row: Mapping[str, Any]) -> Iterable[tuple[Sequence[float], str]]:
    image = _image(row) or {}
    boxes, labels = image.get("boxes") or [], image.get("box_labels") or []
    if len(boxes) != len(labels):
        return
    for box, label in zip(boxes, labels, strict=True):
        name = shortened(clean(label or ""), LABEL_WORDS)
        if box is not None and _has_area(box) and not is_blank(name):
            yield box, name


def _has_area(box: Sequence[float | None]) -> bool:
    x0, y0, x1, y1 = (math.nan if one is None else one for one in box)
    return all(map(math.isfinite, (x0, y0, x1, y1))) and x1 > x0 and y1 > y0
