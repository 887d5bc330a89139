"""Removes the text between two marks. The time is linear in the length of the text, whatever the text is.

`re.sub("<!--.*?-->", ...)` takes quadratic time on opening marks that are never closed, because it searches for the closing
mark again after each of them. Half a million `<!--` take an hour.
"""

from __future__ import annotations

from typing import AnyStr


def cut_out(text: AnyStr, opening: AnyStr, closing: AnyStr) -> AnyStr:
    """Return the text without the parts from an opening mark to the next closing mark. The marks are removed too.

    An opening mark that is never closed is kept.
    """
    pieces: list[AnyStr] = []
    place = 0
    while (start := text.find(opening, place)) >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
        pieces.append(text[place:start])
        place = end + len(closing)
    if not pieces:
        return text
    pieces.append(text[place:])
    return text[:0].join(pieces)
