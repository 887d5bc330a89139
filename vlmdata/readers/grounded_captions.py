"""Turn captions with boxes for some of their words into grounded texts, from records in the form of GRIT.

GRIT (Peng et al. 2023, Kosmos-2, arXiv:2306.14824) has `noun_chunks` and `ref_exps`: lists of [start, end, x0, y0, x1, y1,
score]. Start and end are characters of the caption, edges are fractions of the image's sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from vlmdata.grounding.spans import Box, Grounding, Span, plain_boxes
from vlmdata.readers.stated_values import box


class Grounded(NamedTuple):
    """A text with boxes behind words, its grounding (None: no boxes), the boxes as fractions, and their words."""

    text: str
    grounding: Grounding | None
    boxes: list[Box]
    labels: list[str]


def grounded(caption: str, phrases: Sequence[Sequence[Any]], min_score: float, others: Counter[str]) -> Grounded:
    """Return a caption with the boxes of its phrases behind their words. The image is at position 0 of the row.

    `phrases` holds lists in the order of preference: of two phrases that overlap, the first list's one stays, and within a list
    the longer one. Several boxes of the same words stay together. Entries that cannot be used, have a score under `min_score`,
    or overlap others are left out and counted in `others`.
    """
    chosen: dict[tuple[int, int], list[Box]] = {}
    for some in phrases:
        places: dict[tuple[int, int], list[Box]] = {}
        for entry in some:
            found = _entry(entry, caption)
            if found is None:
                others["bad_phrase"] += 1
            elif found[2] < min_score:
                others["phrase_below_min_score"] += 1
            else:
                places.setdefault(found[0], []).append(found[1])
        for (start, end), boxes in sorted(places.items(), key=lambda one: (one[0][0] - one[0][1], one[0])):
            if all(end <= other[0] or start >= other[1] for other in chosen):
                chosen[start, end] = boxes
            else:
                others["phrase_within_another"] += len(boxes)
    return _written(caption, chosen)


def _written(caption: str, chosen: dict[tuple[int, int], list[Box]]) -> Grounded:
    text, at = "", 0
    spans: list[Span] = []
    every: list[Box] = []
    labels: list[str] = []
    for (start, end), boxes in sorted(chosen.items()):
        text += caption[at:start]
        phrase, written = caption[start:end], f" {plain_boxes(boxes)}"
        numbers = tuple(range(len(every), len(every) + len(boxes)))
        begin = len(text)
        text += phrase + written
        spans.append(Span(begin, begin + len(phrase), len(text), phrase + written, 0, numbers))
        every += boxes
        labels += [phrase] * len(boxes)
        at = end
    return Grounded(text + caption[at:], Grounding("mention", tuple(spans)) if spans else None, every, labels)


def _entry(entry: Any, caption: str) -> tuple[tuple[int, int], Box, float] | None:
    """Return the words' place, the box cut at the edges and the score of an entry, or None if it cannot be used."""
    if not isinstance(entry, list | tuple) or len(entry) != 7:
        return None
    numbers, edges = box([entry[0], entry[1], entry[6], 0]), box(entry[2:6])
    if numbers is None or edges is None:
        return None
    start, end = numbers[0], numbers[1]
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in edges)
    if start != int(start) or end != int(end) or not 0 <= start < end <= len(caption) or not (x0 < x1 and y0 < y1):
        return None
    phrase = caption[int(start) : int(end)]
    if phrase != phrase.strip() or not phrase or _cuts_word(caption, int(start)) or _cuts_word(caption, int(end)):
        return None  # the places are not characters of this caption, but bytes, UTF-16 or those of another text
    return (int(start), int(end)), (x0, y0, x1, y1), numbers[2]


def _cuts_word(caption: str, at: int) -> bool:
    """Return whether a place lies within a word of Latin letters. Other scripts may have no spaces."""
    around = caption[max(at - 1, 0) : at + 1]
    return len(around) == 2 and at > 0 and around.isascii() and around.isalpha()
