"""Paragraphs of a column: lines that belong together by their distance, size and indent."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlmdata.pdf.figures import Figure
from vlmdata.pdf.geometry import Box, has_center_in, union
from vlmdata.pdf.glyphs import Line
from vlmdata.pdf.layout import columns

USUAL_HEIGHT = 12.0  # points, of a line on a page without text
LEADING = 1.45  # of the usual distance between lines: a larger one begins a paragraph
OTHER_SIZE = 1.18  # ratio of heights: a heading
INDENT = 0.8  # of a line's height
SHORT = 0.85  # of the column's width: a line that ends a paragraph
ENDS = '.!?:;。！？…"”’»)'
_ITEM = re.compile(r"([•‣▪◦●–—*]|\(?\d{1,3}[.)\]]|\[\d{1,3}\]|\(?[a-z]\))(\s|$)")


@dataclass
class Block:
    """A paragraph or heading as lines, or a figure (`lines` is empty)."""

    lines: list[Line]
    box: Box
    figure: Figure | None = None

    @property
    def height(self) -> float:
        return statistics.median(line.height for line in self.lines)


def blocks_of(lines: Sequence[Line], figures: Sequence[Figure]) -> list[Block]:
    """Return the paragraphs and figures of a page in reading order. Lines within a figure are its labels and are left out."""
    outside = [line for line in lines if not any(has_center_in(line.box, figure.box) for figure in figures)]
    height = usual_height(outside)
    items: list[Line | Figure] = [*outside, *figures]
    found: list[Block] = []
    for column in columns(items, height, from_right=is_from_right(outside)):
        found += _paragraphs(column)
    return found


def ordered_lines(lines: Sequence[Line]) -> list[list[Line]]:
    """Return the lines of a page in reading order, as a list for each paragraph. Turned lines come last, each alone."""
    upright = [line for line in lines if not line.is_turned]
    blocks = blocks_of(upright, [])
    return [*(block.lines for block in blocks), *([line] for line in lines if line.is_turned)]


def usual_height(lines: Sequence[Line]) -> float:
    """Return the median height of the lines, weighted by their words, in points."""
    heights = [line.height for line in lines for _ in line.words[:50]]
    return statistics.median(heights) if heights else USUAL_HEIGHT


def is_from_right(lines: Sequence[Line]) -> bool:
    """Return whether most letters of the lines are Hebrew or Arabic."""
    letters = [letter for line in lines for letter in line.text if letter.isalpha()]
    return 2 * sum("\u0590" <= one <= "\u08ff" or "\ufb1d" <= one <= "\ufefc" for one in letters) > len(letters)


def _paragraphs(column: Sequence[Line | Figure]) -> Iterator[Block]:
    lines: list[Line] = []
    texts = _rejoined([one for one in column if isinstance(one, Line)])
    figures = [one for one in column if isinstance(one, Figure)]
    leading = _usual_leading(texts)
    left, right = (min((one.box[0] for one in texts), default=0.0), max((one.box[2] for one in texts), default=0.0))
    order = _in_place(column, texts, figures)
    for one in order:
        if isinstance(one, Figure):
            if lines:
                yield Block(lines, union(line.box for line in lines))
                lines = []
            yield Block([], one.box, one)
            continue
        if lines and _begins(lines, one, leading, left, right):
            yield Block(lines, union(line.box for line in lines))
            lines = []
        lines.append(one)
    if lines:
        yield Block(lines, union(line.box for line in lines))


def _in_place(column: Sequence[Line | Figure], texts: list[Line], figures: list[Figure]) -> list[Line | Figure]:
    """Return the joined lines and the figures in the order of the column."""
    if not figures:
        return list(texts)
    held = {id(one) for one in texts}
    return [one for one in column if isinstance(one, Figure) or id(one) in held]


def _rejoined(lines: Sequence[Line]) -> list[Line]:
    """Return lines with those beside each other as one: a number and its heading, a raised note, the cells of a table's row."""
    found: list[Line] = []
    for line in lines:
        before = found[-1] if found else None
        if before is not None and _is_same_line(before, line):
            before.words = [*before.words, *line.words]
            before.box = union([before.box, line.box])
            before.is_divided = line.is_divided
            continue
        found.append(line)
    return found


def _is_same_line(before: Line, line: Line) -> bool:
    overlap = min(before.box[3], line.box[3]) - max(before.box[1], line.box[1])
    gap = max(line.box[0] - before.box[2], before.box[0] - line.box[2])
    height = max(before.height, line.height)
    return overlap > 0.6 * min(before.height, line.height) and gap > -0.2 * height


def _usual_leading(lines: Sequence[Line]) -> float:
    """Return the usual distance between the tops of neighbouring lines, in points."""
    steps = [after.box[3] - before.box[3] for before, after in itertools.pairwise(lines)]
    near = sorted(step for step, line in zip(steps, lines, strict=False) if 0.5 * line.height < step < 2.5 * line.height)
    return near[len(near) // 4] if near else 1.2 * usual_height(lines)  # not the median: half of the lines may end a paragraph


def _begins(lines: Sequence[Line], line: Line, leading: float, left: float, right: float) -> bool:
    """Return whether a line begins a new paragraph after `lines`."""
    before = lines[-1]
    step = line.box[3] - before.box[3]
    if step > LEADING * max(leading, 0.8 * min(before.height, line.height)) or step < -0.5 * line.height:
        return True
    if not 1 / OTHER_SIZE < before.height / line.height < OTHER_SIZE:
        return True
    if _ITEM.match(line.text):
        return True
    is_short = before.box[2] < left + SHORT * (right - left)
    is_indented = line.box[0] - before.box[0] > INDENT * line.height
    if is_indented and (len(lines) > 1 or not is_short) and not _ITEM.match(lines[0].text):
        return True
    return is_short and before.text[-1] in ENDS and not line.text[:1].islower()
