"""Which boxes of an image a mark can show without doubt, and why others cannot. Boxes are in pixels of the stored image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vlmdata.grounding.spans import Box

MIN_SIDE = 32  # pixels; the frame of a smaller box would be more frame than box
SAME_PLACE = 0.5  # from this overlap (intersection over union) on, a frame around one box is as well one around the other
IN_FRONT = 3.0  # a box that is at least this many times as large as one over it counts as its background


@dataclass(frozen=True)
class Limits:
    """Which boxes may be marked. Areas are shares of the picture's area, `min_visible` is a share of the whole box's area."""

    min_area: float
    max_area: float
    min_visible: float


@dataclass(frozen=True)
class Place:
    """A box with an area within the picture, cut at its edges, and the name of what it holds if that is known."""

    number: int  # position in the image's `boxes`
    box: Box
    name: str | None

    @property
    def area(self) -> float:
        """The area in square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])

    @property
    def centre(self) -> tuple[float, float]:
        """The x and y of the middle."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def shorter(self) -> float:
        """The shorter side in pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])


def places(boxes: Sequence[Sequence[float | None] | None], names: Sequence[str | None], width: int, height: int) -> list[Place]:
    """Return the boxes that have an area within a picture of this size, with their names. Reversed edges have none."""
    found = ((number, _within(box, width, height)) for number, box in enumerate(boxes))
    return [Place(number, box, names[number]) for number, box in found if box is not None]


def _within(box: Sequence[float | None] | None, width: int, height: int) -> Box | None:
    edges = [math.nan if edge is None else float(edge) for edge in box or ()]
    if len(edges) != 4 or not all(map(math.isfinite, edges)):
        return None
    x0, x1 = (min(max(edge, 0.0), float(width)) for edge in edges[::2])
    y0, y1 = (min(max(edge, 0.0), float(height)) for edge in edges[1::2])
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def whole_boxes(
    originals: Sequence[Sequence[float | None] | None], view: Sequence[float | None] | None, width: int, height: int
) -> list[Box | None]:
    """Return boxes that are fractions of the original in pixels of the stored image, beyond its edges where they were cut."""
    left, top, right, bottom = (math.nan if edge is None else float(edge) for edge in view or (0.0, 0.0, 1.0, 1.0))
    wide, high = right - left, bottom - top
    found: list[Box | None] = []
    for box in originals:
        edges = [math.nan if edge is None else float(edge) for edge in box or ()]
        if len(edges) != 4 or not all(map(math.isfinite, (*edges, wide, high))) or not (wide > 0 and high > 0):
            found.append(None)
            continue
        x0, x1 = ((edge - left) / wide * width for edge in edges[::2])
        y0, y1 = ((edge - top) / high * height for edge in edges[1::2])
        found.append((x0, y0, x1, y1))
    return found


def usable(
    found: Sequence[Place], wholes: Sequence[Box | None], width: int, height: int, limits: Limits
) -> tuple[list[Place], Counter[str]]:
    """Return the places that a mark can show, and for the others how many each reason refused.

    `wholes` are the boxes before they were cut, by the numbers of the places; a box that is not known counts as whole. A place
    without a name is refused too, but remains a place that makes others doubtful.
    """
    kept, refused = [], Counter[str]()
    for place in found:
        reason = _refused(place, found, wholes, width * height, limits)
        if reason:
            refused[reason] += 1
        else:
            kept.append(place)
    return kept, refused


def _refused(place: Place, found: Sequence[Place], wholes: Sequence[Box | None], pixels: int, limits: Limits) -> str | None:
    if place.name is None:
        return "no_label"
    if place.shorter < MIN_SIDE:
        return "min_side"
    if place.area < limits.min_area * pixels:
        return "min_area"
    if place.area > limits.max_area * pixels:
        return "max_area"
    whole = wholes[place.number] if place.number < len(wholes) else None
    if whole is not None and place.area < limits.min_visible * (whole[2] - whole[0]) * (whole[3] - whole[1]):
        return "min_visible"
    if any(overlap(place.box, other.box) >= SAME_PLACE for other in _unlike(place, found)):
        return "same_place"
    return None


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes, 0 to 1."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return wide * high / (sum(areas) - wide * high)


def _unlike(place: Place, found: Sequence[Place]) -> list[Place]:
    """Return the other places that may hold something else than this one."""
    name = (place.name or "").casefold()
    return [one for one in found if one is not place and (one.name is None or one.name.casefold() != name)]


def is_doubtful(x: float, y: float, place: Place, found: Sequence[Place]) -> bool:
    """Return whether a point in a place may as well mean another thing: a box that is not much larger and has the point too."""
    return any(
        one.box[0] <= x <= one.box[2] and one.box[1] <= y <= one.box[3] and one.area < IN_FRONT * place.area
        for one in _unlike(place, found)
    )


def crossed(tail: tuple[float, float], tip: tuple[float, float], place: Place, found: Sequence[Place]) -> int:
    """Return how many other things a line to a place crosses. Boxes around the tip do not count, as no line avoids them."""
    return sum(
        _meets(tail, tip, one.box)
        for one in _unlike(place, found)
        if not (one.box[0] <= tip[0] <= one.box[2] and one.box[1] <= tip[1] <= one.box[3])
    )


def _meets(start: tuple[float, float], end: tuple[float, float], box: Box) -> bool:
    """Return whether a line meets a box. The line is cut by each side in turn (Liang and Barsky 1984)."""
    low, high = 0.0, 1.0
    for at, to, first, last in ((start[0], end[0], box[0], box[2]), (start[1], end[1], box[1], box[3])):
        if to == at:
            if not first <= at <= last:
                return False
            continue
        near, far = sorted(((first - at) / (to - at), (last - at) / (to - at)))
        low, high = max(low, near), min(high, far)
    return low <= high


def way_out(x: float, y: float, dx: float, dy: float, box: Box) -> float:
    """Return how far it is from a point in a box to its edge in a direction of length 1, in pixels."""
    ways = [(box[2] - x) / dx if dx > 0 else (box[0] - x) / dx] if dx else []
    ways += [(box[3] - y) / dy if dy > 0 else (box[1] - y) / dy] if dy else []
    return min(ways)
