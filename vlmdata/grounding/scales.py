"""How families of models write a box in numbers. A box goes in and comes out as fractions of the picture, 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vlmdata.grounding.spans import Box

Numbers = tuple[int, ...]
SLACK = 1e-6  # of a step: rounding down must not lose a step where a float lies a little below a whole number


class Scale(Protocol):
    """The numbers of a box. `decode(encode(box))` differs from the box by at most one bin at each edge."""

    def encode(self, box: Box, width: int, height: int) -> Numbers:
        """Return the numbers of a box with an area. The size of the picture is in pixels."""

    def decode(self, numbers: Sequence[float], width: int, height: int) -> Box | None:
        """Return the box of numbers, or None if they are outside of the range or if a corner is on the wrong side."""

    def bin_size(self, width: int, height: int) -> tuple[float, float]:
        """Return the width and height of a bin, as fractions of the picture."""


@dataclass(frozen=True)
class Steps:
    """Four whole numbers x0, y0, x1, y1: the picture's width and height are `steps` steps, and no number is above `most`."""

    steps: int
    most: int
    rounds_down: bool = False

    def encode(self, box: Box, width: int, height: int) -> Numbers:
        return tuple(min(max(self._whole(edge * self.steps), 0), self.most) for edge in box)

    def _whole(self, value: float) -> int:
        return math.floor(value + SLACK) if self.rounds_down else round(value)

    def decode(self, numbers: Sequence[float], width: int, height: int) -> Box | None:
        return _box([number / self.steps for number in numbers]) if len(numbers) == 4 else None

    def bin_size(self, width: int, height: int) -> tuple[float, float]:
        return 1 / self.steps, 1 / self.steps


@dataclass(frozen=True)
class Pixels:
    """Four whole numbers x0, y0, x1, y1 in pixels of the model's picture, from 0 to the side less 1."""

    def encode(self, box: Box, width: int, height: int) -> Numbers:
        sides = (width, height, width, height)
        return tuple(min(max(round(edge * side), 0), side - 1) for edge, side in zip(box, sides, strict=True))

    def decode(self, numbers: Sequence[float], width: int, height: int) -> Box | None:
        if len(numbers) != 4 or width < 1 or height < 1:
            return None
        sides = (width, height, width, height)
        return _box([number / side for number, side in zip(numbers, sides, strict=True)])

    def bin_size(self, width: int, height: int) -> tuple[float, float]:
        return 1 / width, 1 / height


@dataclass(frozen=True)
class Cells:
    """The numbers of two cells of a square grid, counted by lines from 0: those with the upper left and lower right corner.

    A box becomes the smallest rectangle of cells around it. It is read as the rectangle from the centre of the first cell to
    the centre of the second. A rectangle that is one cell wide or high is read with its outer edges.
    """

    side: int

    def encode(self, box: Box, width: int, height: int) -> Numbers:
        left, top = (min(max(math.floor(edge * self.side), 0), self.side - 1) for edge in box[:2])
        right, bottom = (min(math.ceil(edge * self.side - 1), self.side - 1) for edge in box[2:])
        return top * self.side + left, max(bottom, top) * self.side + max(right, left)

    def decode(self, numbers: Sequence[float], width: int, height: int) -> Box | None:
        if len(numbers) != 2 or not all(0 <= number < self.side**2 for number in numbers):
            return None
        (top, left), (bottom, right) = (divmod(int(number), self.side) for number in numbers)
        inner, outer = (0.0, 1.0) if left == right or top == bottom else (0.5, 0.5)
        if left > right or top > bottom:
            return None
        return _box(
            [(left + inner) / self.side, (top + inner) / self.side, (right + outer) / self.side, (bottom + outer) / self.side]
        )

    def bin_size(self, width: int, height: int) -> tuple[float, float]:
        return 1 / self.side, 1 / self.side


@dataclass(frozen=True)
class Centres:
    """Two whole numbers x, y: the centre of a box, in steps. It is read as a box without an area."""

    steps: int

    def encode(self, box: Box, width: int, height: int) -> Numbers:
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        return tuple(min(max(round(middle * self.steps), 0), self.steps) for middle in centre)

    def decode(self, numbers: Sequence[float], width: int, height: int) -> Box | None:
        return _box([number / self.steps for number in numbers] * 2) if len(numbers) == 2 else None

    def bin_size(self, width: int, height: int) -> tuple[float, float]:
        return 1 / self.steps, 1 / self.steps


def _box(edges: Sequence[float]) -> Box | None:
    x0, y0, x1, y1 = edges
    return (x0, y0, x1, y1) if 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1 else None
