"""Reads boxes in square brackets behind words, as `the dog [125, 250, 500, 750]`. Nothing marks the start of the words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from vlmdata.grounding.form import MOST_CHARACTERS, Found, ReadText, boxes_of
from vlmdata.grounding.scales import Scale

ENDS = re.compile(r"[.,;:!?\n]")
MOST_WORDS = 200  # characters of a phrase


def read_brackets(
    text: str, pattern: re.Pattern[str], groups: Callable[[str], Sequence[Sequence[float]]], scale: Scale, size: tuple[int, int]
) -> ReadText:
    """Return the boxes and the text without them.

    `pattern` matches boxes with the space before them; `groups` returns the numbers of each box of a match. A phrase is the
    words back to the box or punctuation mark before, at most the last 200 characters.
    """
    text = text[:MOST_CHARACTERS]
    kept: list[str] = []
    found: list[Found] = []
    at = 0
    for match in pattern.finditer(text):
        words = text[at : match.start()]
        boxes = boxes_of(scale, groups(match[0]), *size)
        if not boxes:
            continue
        kept.append(words)
        found.append(Found(ENDS.split(words[-MOST_WORDS:])[-1].strip(), boxes))
        at = match.end()
    return ReadText("".join([*kept, text[at:]]).strip(), tuple(found))
