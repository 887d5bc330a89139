"""Words, lines and boxes of pages in the JSON of PDFA and OCR-IDL shards.

PDFA (the dataset card of pixparse/pdfa-eng-wds): `pages` is a list of objects with `words` and `lines`, each an object of
aligned lists `text`, `bbox` and `score`, and with `images_bbox`. IDL (the card of pixparse/idl-wds): a page may also be the
lists of its lines itself, `text`, `bbox`, `poly` and `score`. Hugging Face's loader chug (Apache-2.0) reads both forms. A box
is the left, top, width and height as fractions of the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vlmdata.readers.strings import clean

FAR = 1000  # fractions of a page: larger numbers are no part of a box
OUTSIDE = 0.02  # fraction of the page by which a box may reach over its edge


class WrongPage(ValueError):
    """A page whose lists do not fit each other. The message says why."""


class Marked(NamedTuple):
    """Texts of a page and their boxes (x0, y0, x1, y1), as fractions of the page from 0 to 1. A wrong box is None."""

    texts: list[str]
    boxes: list[tuple[float, float, float, float] | None]


def annotated_pages(facts: Any) -> list[Any] | None:
    """Return the pages in a sample's JSON, or None if it has no list of pages."""
    pages = facts.get("pages") if isinstance(facts, Mapping) else None
    return pages if isinstance(pages, list) and pages else None


def marked(page: Any, kind: str) -> Marked | None:
    """Return the `words` or `lines` of an annotated page, or None if it has none. Raises WrongPage."""
    if not isinstance(page, Mapping):
        raise WrongPage("a page in its JSON is not an object")
    found = page.get(kind)
    if found is None and kind == "lines" and "text" in page:
        found = page
    if found is None:
        return None
    texts, boxes = (found.get("text"), found.get("bbox")) if isinstance(found, Mapping) else (None, None)
    if not isinstance(texts, list) or not isinstance(boxes, list):
        raise WrongPage(f"`{kind}` in its JSON has no lists `text` and `bbox`")
    if len(texts) != len(boxes):
        raise WrongPage(f"`{kind}` in its JSON has {len(texts)} texts and {len(boxes)} boxes")
    if not all(isinstance(text, str) for text in texts):
        raise WrongPage(f"`{kind}` in its JSON has a text that is not a string")
    return Marked([clean(text) for text in texts], [_corners(box) for box in boxes])


def _corners(box: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(box, list) or len(box) != 4 or not all(type(one) in (int, float) and abs(one) < FAR for one in box):
        return None  # no NaN either, and no integer that is too large for a float
    left, top, width, height = box
    ends = left, top, left + width, top + height
    if width <= 0 or height <= 0 or min(ends) < -OUTSIDE or max(ends) > 1 + OUTSIDE:
        return None
    x0, y0, x1, y1 = (min(max(float(end), 0.0), 1.0) for end in ends)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
