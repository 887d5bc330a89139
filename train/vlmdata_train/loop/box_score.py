"""Compare the boxes of a generated answer with those of the true answer."""

from __future__ import annotations

from collections.abc import Sequence

from vlmdata.grounding.neutral import read_neutral
from vlmdata.grounding.spans import Box
from vlmdata.grounding.write import read_text
from vlmdata_train.model.box_form import BoxForm


def overlap(truth: str, generated: str, form: BoxForm | None, width: int, height: int) -> float | None:
    """Return the least IoU of the true boxes with those that were generated, 0 to 1, or None if the true answer has no box.

    Each generated box counts for one true box, in the order of their IoU. The result is 0 if their numbers differ. `form` is
    that of both answers, for a picture of this size in pixels. Points, which have no area, are not compared.
    """
    expected = [box for box in boxes_in(truth, form, width, height) if area(box) > 0]
    if not expected:
        return None
    found = boxes_in(generated, form, width, height)
    if len(found) != len(expected):
        return 0.0
    pairs = sorted(
        ((iou(one, other), m, n) for m, one in enumerate(expected) for n, other in enumerate(found)), reverse=True
    )  # fmt: skip
    used: tuple[set[int], set[int]] = (set(), set())
    least = 1.0
    for value, m, n in pairs:
        if m not in used[0] and n not in used[1]:
            used[0].add(m)
            used[1].add(n)
            least = min(least, value)
    return least


def boxes_in(text: str, form: BoxForm | None, width: int, height: int) -> list[Box]:
    """Return the boxes of a text in a form, or in the neutral form (None), as fractions of the picture."""
    if form is None:
        return read_neutral(text)
    return [box for found in read_text(text, form.name, width, height).found for box in found.boxes]


def area(box: Box) -> float:
    """Return the area of a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def iou(one: Box, other: Box) -> float:
    """Return the intersection of two boxes over their union, 0 to 1."""
    edges: Sequence[float] = (max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3]))
    both = max(edges[2] - edges[0], 0.0) * max(edges[3] - edges[1], 0.0)
    union = area(one) + area(other) - both
    return both / union if union > 0 else 0.0
