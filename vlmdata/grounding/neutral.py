"""Grounded texts in their stored, neutral form, for the picture that a model gets.

The boxes stay fractions, `the dog [0.125, 0.250, 0.500, 0.750] on a sofa`, but of the model's picture. So the text fits the
pixels of a model that has no form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vlmdata.grounding.frame import Shown
from vlmdata.grounding.spans import Box, Grounding, Span, plain_boxes

_NUMBER = r"\s{0,3}([01](?:\.\d{1,9})?)\s{0,3}"
_BOX = re.compile(rf"\[{','.join([_NUMBER] * 4)}\]")


def neutral_text(text: str, grounding: Grounding | None, shown: Mapping[int, Shown], min_visible: float) -> str | None:
    """Return a grounded text with the boxes of the model's picture.

    `shown` has the images by the number that spans use. A box counts if at least `min_visible` of it is visible in the picture.
    A mention whose boxes do not count stays as words. An answer to detect or refer leaves them out. The result is None if the
    text is no longer true or complete: an answer to detect or refer without any box that counts, or a question about boxes
    (describe) of which one does not count.
    """
    if grounding is None:
        return text
    task, spans = grounding.task, grounding.spans
    seen = [_seen(span, shown, min_visible) for span in spans]
    if task == "describe" and any(len(own) < len(span.boxes) for own, span in zip(seen, spans, strict=True)):
        return None
    is_answer = task in ("detect", "refer") and any(span.boxes for span in spans)
    if is_answer and not any(seen):
        return None
    written, at = "", 0
    for span, boxes in zip(spans, seen, strict=True):
        before, phrase = text[at : span.start], text[span.start : span.phrase_end]
        behind, at = text[span.phrase_end : span.end], span.end
        if is_answer and span.boxes and not boxes:
            continue  # with the separator before it
        if is_answer and not written and span is not spans[0]:
            before = ""
        written += before + phrase
        if boxes:
            written += behind[: len(behind) - len(behind.lstrip())] + plain_boxes(boxes)
        elif not span.boxes:
            written += behind
    return written + text[at:]


def read_neutral(text: str) -> list[Box]:
    """Return the boxes in a text of the neutral form, as fractions of the picture. Other numbers in brackets are left out."""
    found = [tuple(map(float, match.groups())) for match in _BOX.finditer(text)]
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in found if x0 <= x1 <= 1 and y0 <= y1 <= 1]


def _seen(span: Span, shown: Mapping[int, Shown], min_visible: float) -> Sequence[Box]:
    image = shown.get(span.image)
    found = [] if image is None else [image.box(number, min_visible) for number in span.boxes]
    return [box for box in found if box is not None]
