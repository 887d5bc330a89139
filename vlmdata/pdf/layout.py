"""The reading order of a page: columns are found by recursive cuts along white gaps (XY-cut), without a model.

A page is first cut between columns that reach over its whole height. Otherwise it is cut into bands, such as a title above two
columns, and each group of bands that has a common gap is cut into columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from vlmdata.pdf.geometry import Box, area, shared

MOST_WORK = 500_000  # items of a page that are compared to find columns; after that, bands are read from top to bottom
DEEPEST = 40  # nested cuts; a page that needs more is sorted from top to bottom
MIN_COLUMN = 6.0  # width of a column in heights of a line; lists have narrower numbers
MIN_GAP = 0.6  # width of the gap between columns, in heights of a line
FULL = 0.6  # share of the column's width that at least half of its lines fill; the cells of a table do not
MIN_OVERLAP = 0.5  # share of the smaller line; lines that overlap more cannot both be read
UNCLEAR = 0.2  # share of a page's lines that overlap others


class Boxed(Protocol):
    """Anything with a box on the page: a line or a figure."""

    box: Box


B = TypeVar("B", bound=Boxed)


def columns(items: Sequence[B], height: float, *, from_right: bool = False) -> list[list[B]]:
    """Return the items in reading order, in a list for each column. `height` is the usual height of a line in points.

    `from_right`: the right column is read first, as in Arabic or Hebrew.
    """
    return _columns(items, height, from_right, 0, _Work(MOST_WORK))


@dataclass
class _Work:
    """How many more items of the page may be compared."""

    left: int


def _columns(items: Sequence[B], height: float, from_right: bool, depth: int, work: _Work) -> list[list[B]]:
    if len(items) < 2 or depth > DEEPEST:
        return [sorted(items, key=lambda item: (item.box[1], item.box[0]))] if items else []
    cut = _column_cut(items, height)
    if cut is not None:
        sides = [[item for item in items if item.box[0] < cut], [item for item in items if item.box[0] >= cut]]
        ordered = reversed(sides) if from_right else sides
        return [found for side in ordered for found in _columns(side, height, from_right, depth + 1, work)]
    bands = _bands(items)
    groups = _joined(bands, height, work)
    if len(groups) == 1:
        return [_rows(items, from_right=from_right)]
    found: list[list[B]] = []
    was_single = False  # bands without columns continue each other
    for group in groups:
        inner = _columns(group, height, from_right, depth + 1, work)
        is_single = len(inner) == 1
        if was_single and is_single:
            found[-1] = [*found[-1], *inner[0]]
        else:
            found += inner
        was_single = is_single
    return found


def is_unclear(items: Sequence[Boxed]) -> bool:
    """Return whether the order of lines is unknown because too many of them overlap, as in text that is set over other text."""
    found = sorted(items, key=lambda item: item.box[1])
    overlapping: set[int] = set()
    for number, one in enumerate(found):
        for other in range(number + 1, len(found)):
            if found[other].box[1] >= one.box[3]:
                break
            if shared(_core(one.box), _core(found[other].box)) > MIN_OVERLAP:
                overlapping |= {number, other}
    return len(overlapping) > UNCLEAR * len(found)


def _core(box: Box) -> Box:
    """Return the middle half of a line's height, because boxes reach from ascent to descent and may overlap."""
    quarter = (box[3] - box[1]) / 4
    return box[0], box[1] + quarter, box[2], box[3] - quarter


def _column_cut(items: Sequence[B], height: float) -> float | None:
    """Return the x at which the first gap between two columns of the items ends, or None if there are no columns.

    A narrow part, such as the numbers of a list, belongs to the next column, or to the last one.
    """
    found: list[list[B]] = []
    narrow: list[B] = []
    for part in _parts(items, height):
        whole = [*narrow, *part]
        if _is_column(part, height) or (narrow and _is_column(whole, height)):
            found.append(whole)
            narrow = []
        else:
            narrow = whole
    if narrow and found:
        found[-1] = [*found[-1], *narrow]
    if len(found) < 2 or not all(_is_column(one, height) for one in found) or not _are_beside(found[0], found[1]):
        return None
    return min(item.box[0] for item in found[1])


def _parts(items: Sequence[B], height: float) -> list[list[B]]:
    """Return the items in parts from left to right, with a gap between any two of them."""
    parts: list[list[B]] = []
    end = float("-inf")
    for item in sorted(items, key=lambda one: one.box[0]):
        if item.box[0] - end >= MIN_GAP * height:
            parts.append([])
        parts[-1].append(item)
        end = max(end, item.box[2])
    return parts


def _is_column(items: Sequence[Boxed], height: float) -> bool:
    """Return whether items look like a column of prose or figures, and not like cells of a table or numbers of a list."""
    left, right = min(item.box[0] for item in items), max(item.box[2] for item in items)
    if right - left < MIN_COLUMN * height:
        return False
    tall = [item for item in items if item.box[3] - item.box[1] > 4 * height]
    full = [item for item in items if item.box[2] - item.box[0] >= FULL * (right - left)]
    return bool(tall) or (len(items) >= 2 and 2 * len(full) >= len(items))


def _are_beside(left: Sequence[Boxed], right: Sequence[Boxed]) -> bool:
    """Return whether two columns share a part of their height. Otherwise one of them is above the other."""
    top = max(min(item.box[1] for item in left), min(item.box[1] for item in right))
    bottom = min(max(item.box[3] for item in left), max(item.box[3] for item in right))
    return bottom > top


def _bands(items: Sequence[B]) -> list[list[B]]:
    """Return the items in bands that are separated by white gaps from the left to the right edge, from top to bottom."""
    bands: list[list[B]] = []
    end = float("-inf")
    for item in sorted(items, key=lambda item: item.box[1]):
        depth = 0.25 * (item.box[3] - item.box[1])  # boxes reach from ascent to descent, so those of two lines may overlap
        if not bands or item.box[1] + depth >= end:
            bands.append([])
        bands[-1].append(item)
        end = max(end, item.box[3] - 0.25 * (item.box[3] - item.box[1]))
    return bands


def _joined(bands: Sequence[list[B]], height: float, work: _Work) -> list[list[B]]:
    """Return neighbouring bands as one group for as long as the group has a gap between columns."""
    groups: list[list[B]] = []
    number = 0
    while number < len(bands):
        longest, union = number + 1, list(bands[number])
        spans = _with_spans([], bands[number], height)
        for end in range(number + 1, len(bands)):
            union += bands[end]
            spans = _with_spans(spans, bands[end], height)
            if len(spans) > 1:
                work.left -= len(union)
                if work.left >= 0 and _column_cut(union, height) is not None:
                    longest = end + 1
            elif spans[0][1] - spans[0][0] >= 2 * MIN_COLUMN * height:
                break  # together the bands leave no gap in x, so that no more bands can give one
            if work.left < 0:
                break
        groups.append([item for band in bands[number:longest] for item in band])
        number = longest
    return groups


def _with_spans(spans: Sequence[tuple[float, float]], band: Sequence[Boxed], height: float) -> list[tuple[float, float]]:
    """Return the parts of the x axis that are covered, with those of one more band. Parts have gaps between columns."""
    found = list(spans)
    for item in band:
        left, right = item.box[0], item.box[2]
        apart = []
        for span in found:
            if left - span[1] >= MIN_GAP * height or span[0] - right >= MIN_GAP * height:
                apart.append(span)
            else:
                left, right = min(left, span[0]), max(right, span[1])
        found = [*apart, (left, right)]
    return found


def _rows(items: Sequence[B], *, from_right: bool) -> list[B]:
    """Return items from top to bottom. Those whose middles are at the same height are read across."""
    found: list[list[B]] = []
    for item in sorted(items, key=lambda one: (one.box[1] + one.box[3]) / 2):
        middle = (item.box[1] + item.box[3]) / 2
        if found and area(item.box) and found[-1][0].box[1] <= middle <= found[-1][0].box[3]:
            found[-1].append(item)
        else:
            found.append([item])
    return [one for row in found for one in sorted(row, key=lambda one: -one.box[2] if from_right else one.box[0])]
