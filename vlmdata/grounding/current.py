"""Brings the numbers and spans of a grounded text up to date with the images as they are stored.

A text is grounded when its image has some size and crop. A later resize may move a box, cut it or remove it, and a later step
may reject the image. So packing writes the numbers again from the boxes that the stored image has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vlmdata.grounding.spans import Box, Grounding, Span, plain_boxes

BETWEEN = "\n\n"  # between texts that are joined into one
_EDGE = r"\d+(?:\.\d+)?"
_PLAIN = re.compile(rf"(\s*)\[{_EDGE}(?:, {_EDGE}){{3}}\](?: \[{_EDGE}(?:, {_EDGE}){{3}}\])*")  # as `plain_boxes` writes them


class Kept(NamedTuple):
    """An image that is kept: its position in the sample's lists, and its boxes as fractions of the stored image.

    `boxes` are aligned with the boxes of the image, with None for one that the image does not show. They are None if the size
    of the stored image is not known.
    """

    position: int
    boxes: Sequence[Box | None] | None


class Current(NamedTuple):
    """A text whose numbers fit the stored images, its grounding or None, and whether it still says what it was written for.

    `is_whole` is false if a text of another task than `mention`, such as the answer to a question for a place, has lost all
    boxes of a span.
    """

    text: str
    grounding: Grounding | None
    is_whole: bool = True


def current(text: str, grounding: Grounding, kept: Mapping[int, Kept]) -> Current:
    """Return a text with the numbers of the boxes that its images show now. `kept` has the images by position in the row.

    A span whose image was rejected, or of whose boxes none is visible, loses its numbers; its words stay in the text.
    """
    parts: list[str] = []
    spans: list[Span] = []
    length, end, is_whole = 0, 0, True
    for span in grounding.spans:
        tail, boxes = _tail(text, span, kept.get(span.image))
        before = text[end : span.start]
        if not tail and span.start == span.phrase_end < span.end:  # nothing is left of the span: no double space stays
            before = before.removesuffix(" ")
        phrase = text[span.start : span.phrase_end]
        parts += [before, phrase, tail]
        start = length + len(before)
        length, end = start + len(phrase) + len(tail), span.end
        if boxes or (not span.boxes and span.image in kept):
            at = kept[span.image].position
            spans.append(Span(start, start + len(phrase), length, phrase + tail, at, boxes))
        elif span.boxes:
            is_whole = is_whole and grounding.task == "mention"
    written = "".join([*parts, text[end:]])
    found = Grounding(grounding.task, tuple(spans)) if spans or grounding.task != "mention" else None
    return Current(written, found, is_whole)


def _tail(text: str, span: Span, image: Kept | None) -> tuple[str, tuple[int, ...]]:
    """Return what stands behind the words of a span, and the numbers of its boxes that the image shows."""
    tail = text[span.phrase_end : span.end]
    places = () if image is None else image.boxes
    if places is None:
        return tail, span.boxes
    seen = [(number, box) for number in span.boxes if number < len(places) and (box := places[number]) is not None]
    numbers = tuple(number for number, _ in seen)
    plain = _PLAIN.fullmatch(tail)
    if plain is None:  # the text names the object without numbers, or has numbers of another form
        return tail, numbers
    return plain[1] + plain_boxes([box for _, box in seen]) if seen else "", numbers


def joined(texts: Sequence[tuple[str, Grounding | None]]) -> tuple[str, Grounding | None]:
    """Return texts joined with an empty line between them, and their spans as spans of the joined text.

    Texts of several tasks, or beside texts that are not grounded, make a text of the task `mention`.
    """
    spans: list[Span] = []
    length = 0
    for text, grounding in texts:
        spans += [span.moved(length) for span in (grounding.spans if grounding else ())]
        length += len(text) + len(BETWEEN)
    tasks = {None if grounding is None else grounding.task for _, grounding in texts}
    task = tasks.pop() if len(tasks) == 1 else "mention"
    found = None if task is None or (task == "mention" and not spans) else Grounding(task, tuple(spans))
    return BETWEEN.join(text for text, _ in texts), found


def without_numbers(text: str, grounding: Grounding | None) -> str:
    """Return a grounded text without the numbers of its boxes, for a place where nobody keeps them up to date."""
    return text if grounding is None else current(text, grounding, {}).text


def found_again(grounding: Grounding, after: str) -> Grounding | None:
    """Return the grounding of a text that a step has changed to `after`: the spans whose words are still there, in order."""
    spans: list[Span] = []
    for span in grounding.spans:
        start = after.find(span.words, spans[-1].end if spans else 0)
        if start >= 0:
            spans.append(span.moved(start - span.start))
    return Grounding(grounding.task, tuple(spans)) if spans or grounding.task != "mention" else None
