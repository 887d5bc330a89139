"""Where a stored image lies in the picture that a model gets, so that its boxes can be given in that picture.

The picture of a model is what it sees as a whole: for a model that reads tiles, the image from which they are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmdata.grounding.spans import Box

Affine = tuple[float, float, float, float, float, float]  # a, b, c, d, e, f: x' = a·x + b·y + c, y' = d·x + e·y + f
SAME: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Frame:
    """The picture that a model gets, and the map to it from the stored image. Both are in fractions of their sides, 0 to 1."""

    width: int  # of the model's picture, in pixels
    height: int
    to_picture: Affine = SAME

    @staticmethod
    def placed(width: int, height: int, inner: tuple[float, float], *, left: float = 0, top: float = 0) -> Frame:
        """Return the frame of a picture of this size in which the stored image has the size `inner`, (width, height).

        (left, top) is the image's upper left corner. All values are in pixels. The picture cuts off what lies outside of it.
        """
        return Frame(width, height, (inner[0] / width, 0.0, left / width, 0.0, inner[1] / height, top / height))

    def then(self, width: int, height: int, change: Affine) -> Frame:
        """Return the frame after a further change: `change` maps fractions of this picture to fractions of the next one."""
        a, b, c, d, e, f = change
        g, h, i, j, k, m = self.to_picture
        first = a * g + b * j, a * h + b * k, a * i + b * m + c
        second = d * g + e * j, d * h + e * k, d * i + e * m + f
        return Frame(width, height, (*first, *second))

    def box(self, box: Box) -> tuple[Box, float] | None:
        """Return a box of the stored image in the model's picture, clipped at the edges, and the share that is visible, 0 to 1.

        A box that is rotated becomes the smallest upright box around it. The result is None if nothing is visible, or if the
        box has no area.
        """
        a, b, c, d, e, f = self.to_picture
        corners = [(x, y) for x in (box[0], box[2]) for y in (box[1], box[3])]
        xs = [a * x + b * y + c for x, y in corners]
        ys = [d * x + e * y + f for x, y in corners]
        whole = (max(xs) - min(xs)) * (max(ys) - min(ys))
        x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in (min(xs), min(ys), max(xs), max(ys)))
        if not (x1 > x0 and y1 > y0 and whole > 0):
            return None
        return (x0, y0, x1, y1), (x1 - x0) * (y1 - y0) / whole


@dataclass(frozen=True)
class Shown:
    """An image as a model gets it: its boxes, as fractions of the stored image and aligned with its `boxes`, and the frame."""

    boxes: Sequence[Box | None]
    frame: Frame

    def box(self, number: int, min_visible: float = 0.0) -> Box | None:
        """Return one box in the model's picture, or None if it is not known or less than `min_visible` of it is visible."""
        own = self.boxes[number] if 0 <= number < len(self.boxes) else None
        found = None if own is None else self.frame.box(own)
        return found[0] if found is not None and found[1] >= min_visible else None
