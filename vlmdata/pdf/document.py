"""Joins the pages of a PDF into one document: running heads are left out, and divided words and paragraphs are joined."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vlmdata.pdf.blocks import ENDS
from vlmdata.pdf.captions import CAPTION
from vlmdata.pdf.geometry import Box

MARGIN = 0.12  # of the page's height, at the top and at the bottom, in which running heads and page numbers stand
OUTERMOST = 0.25  # of the page's height, in which the first and the last line of a page may be a running head
MOVED = 6.0  # points by which a running head may move between pages
REPEATED = 0.3  # share of the pages on which a running head stands; heads of left and right pages often differ
LEAST_REPEATS = 3  # pages
UNCLEAR_PAGES = 0.2  # share of a document's pages with text whose lines overlap; with more, the layout does not tell the order
SAME_SIZE = 1.12  # ratio of the heights of two parts of one paragraph
CAPTION_GAP = 36.0  # points between a figure and its caption
LONGEST_NUMBER = 40  # characters of a page number with its words and dashes; comparing a long line would take long
_NUMBER = re.compile(
    r"(page|seite|p\.)?[\s\-–—|]*([0-9]{1,5}|[ivxlcdm]{1,7})([\s\-–—|]*(of|/|von)?\s*[0-9]{0,5})?[\s\-–—|]*", re.I
)


@dataclass
class Part:
    """A paragraph, or a figure as the bytes of an image file (`image`), at its place on a page."""

    page: int
    box: Box
    lines: list[dict[str, Any]]
    size: float
    image: bytes | None = None
    caption: str | None = None
    text: str = ""


def parts_of(pages: Sequence[tuple[dict[str, Any], list[bytes]]]) -> list[Part]:
    """Return the paragraphs and figures of a document in reading order, from the messages about its pages."""
    heads = _running_heads([head for head, _ in pages])
    hyphenated = _hyphenated([head for head, _ in pages])
    parts: list[Part] = []
    for head, blobs in pages:
        images = iter(blobs)
        on_page: list[Part] = []
        left_out = _heads_on(head, heads)
        for block in head["blocks"]:
            kept = [line for line in block["lines"] if id(line) not in left_out]
            if not block["lines"]:
                on_page.append(Part(head["page"], tuple(block["box"]), [], 0.0, next(images)))
            elif kept:
                on_page.append(Part(head["page"], tuple(block["box"]), kept, block["size"], text=_text(kept, hyphenated)))
        _set_captions(on_page)
        for part in on_page:
            _append(parts, part, hyphenated)
    return parts


def is_unclear(heads: Sequence[dict[str, Any]]) -> bool:
    """Return whether on too many pages the layout does not tell the order of the text."""
    pages = [head for head in heads if head["has_text"]]
    return sum(bool(head["is_unclear"]) for head in pages) > UNCLEAR_PAGES * len(pages)


def _lines_at_edge(head: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines in the margins of a page, and its first and last line if they are not far from the margins."""
    lines = [line for block in head["blocks"] for line in block["lines"]]
    top, bottom = (min((line["box"][1] for line in lines), default=0), max((line["box"][3] for line in lines), default=0))
    height = head["height"]
    for line in lines:
        start, end = line["box"][1], line["box"][3]
        upper = end < (OUTERMOST if start == top else MARGIN) * height
        lower = start > (1 - (OUTERMOST if end == bottom else MARGIN)) * height
        if upper or lower:
            yield line


def _alike(line: dict[str, Any]) -> str:
    return re.sub(r"[0-9]+", "#", line["text"]).strip().lower()


def _running_heads(heads: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return texts that stand at the same height of many pages, with numbers as `#`, and these heights in points."""
    seen: Counter[tuple[str, int]] = Counter()
    for head in heads:
        here = {(_alike(line), round(line["box"][1] / MOVED)) for line in _lines_at_edge(head)}
        seen.update({(text, place + move) for text, place in here for move in (-1, 0, 1)})
    least = max(LEAST_REPEATS, REPEATED * len(heads))
    found: dict[str, list[float]] = {}
    for (text, place), count in seen.items():
        if count >= least:
            found.setdefault(text, []).append(place * MOVED)
    return found


def _heads_on(head: dict[str, Any], heads: dict[str, list[float]]) -> set[int]:
    """Return the identities of the lines of a page that are running heads or page numbers."""
    return {
        id(line)
        for line in _lines_at_edge(head)
        if (len(line["text"]) <= LONGEST_NUMBER and _NUMBER.fullmatch(line["text"].strip()))
        or any(abs(place - line["box"][1]) <= 2 * MOVED for place in heads.get(_alike(line), ()))
    }


def _hyphenated(heads: Sequence[dict[str, Any]]) -> set[str]:
    """Return the words that have a hyphen within a line, so that a hyphen at the end of a line may belong to the word."""
    lines = (line["text"] for head in heads for block in head["blocks"] for line in block["lines"])
    return {word.lower() for text in lines for word in re.findall(r"\b\w+(?:-\w+)+", text)}


def _text(lines: Sequence[dict[str, Any]], hyphenated: set[str]) -> str:
    text = ""
    for line in lines:
        text = joined(text, line["text"], hyphenated)
    return text


def joined(before: str, after: str, hyphenated: set[str]) -> str:
    """Return two lines as one text. The hyphen of a word that the line break divided is removed.

    The hyphen stays if the word has one elsewhere in the document, if the next line does not begin with a small letter, or if
    the word is a number.
    """
    if not before:
        return after
    first = re.search(r"\b(\w+)-$", before) if before.endswith("-") else None
    second = re.match(r"[^\W\d_]+", after)
    if first is None or second is None:
        is_wide = "\u2e80" < before[-1] < "\uffa0" and "\u2e80" < after[:1] < "\uffa0"  # Chinese and Japanese have no spaces
        return before + ("" if is_wide or before.endswith("-") else " ") + after
    if f"{first[1]}-{second[0]}".lower() in hyphenated or not second[0][0].islower() or first[1].isdigit():
        return before + after
    return before[:-1] + after


def _append(parts: list[Part], part: Part, hyphenated: set[str]) -> None:
    """Add a part. A paragraph that continues after a column, a page or a figure is joined to its beginning."""
    before = next((one for one in reversed(parts) if one.image is None and not CAPTION.match(one.text)), None)
    if part.image is None and before is not None and not CAPTION.match(part.text) and _continues(before, part, parts):
        before.text = joined(before.text, part.text, hyphenated)
        before.page, before.box = part.page, part.box
        return
    parts.append(part)


def _continues(before: Part, part: Part, parts: Sequence[Part]) -> bool:
    """Return whether a paragraph is the rest of a sentence that began in another column, on another page or above a figure."""
    is_elsewhere = part.page != before.page or part.box[1] < before.box[3] or parts[-1] is not before
    is_same_size = 1 / SAME_SIZE < part.size / max(before.size, 0.1) < SAME_SIZE
    if not is_elsewhere or not is_same_size or part.page - before.page > 1 or before.text[-1] in ENDS:
        return False
    return part.text[:1].islower() or before.text.endswith("-")


def _set_captions(parts: Sequence[Part]) -> None:
    """Give each figure the caption that stands directly below or above it."""
    free = [part for part in parts if part.image is None and CAPTION.match(part.text)]
    for figure in (part for part in parts if part.image is not None):
        near = [(gap, part) for part in free if (gap := _gap(figure.box, part.box)) is not None]
        if near:
            _, part = min(near, key=lambda pair: pair[0])
            figure.caption = part.text
            free.remove(part)


def _gap(figure: Box, text: Box) -> float | None:
    """Return the distance in points between a figure and a text below or above it, or None if it is not near."""
    if min(figure[2], text[2]) <= max(figure[0], text[0]):
        return None
    gap = max(text[1] - figure[3], figure[1] - text[3])
    return gap if -CAPTION_GAP / 3 < gap < CAPTION_GAP else None
