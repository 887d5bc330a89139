"""Boxes of a displayed page: (x0, y0, x1, y1) in points, with x to the right and y down from the top left corner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

STRIP = 20.0  # points
Box = tuple[float, float, float, float]


def union(boxes: Iterable[Box]) -> Box:
    """Return the smallest box that holds all boxes. There must be at least one."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def area(box: Box) -> float:
    """Return the area of a box in square points. It is 0 for a box without a width or height."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def common(one: Box, other: Box) -> Box:
    """Return the common part of two boxes. Its area is 0 if they do not meet."""
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def shared(one: Box, other: Box) -> float:
    """Return the share of the smaller box that lies in the other one, 0 to 1."""
    smaller = min(area(one), area(other))
    return area(common(one, other)) / smaller if smaller else 0.0


def grown(box: Box, by: float) -> Box:
    """Return a box with `by` points more on each side."""
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


def has_center_in(box: Box, outer: Box) -> bool:
    """Return whether the center of a box lies in another box."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]


def clusters(boxes: list[Box], within: float) -> list[list[int]]:
    """Return the boxes in groups, as numbers into `boxes`: boxes at most `within` points apart share a group.

    The boxes are swept from left to right, and compared only with those in the same strips of the page, STRIP points high. So
    the thousands of points of a plot take little time.
    """
    parent = list(range(len(boxes)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    strips: defaultdict[int, list[int]] = defaultdict(list)  # the boxes that later ones may still touch
    for number in sorted(range(len(boxes)), key=lambda one: boxes[one][0]):
        box, own = boxes[number], number
        for strip in range(int((box[1] - within) // STRIP), int((box[3] + within) // STRIP) + 1):
            strips[strip] = [one for one in strips[strip] if boxes[one][2] + within >= box[0]]
            for one in strips[strip]:
                if parent[one] != own and boxes[one][1] - within <= box[3] and box[1] - within <= boxes[one][3]:
                    other = root(one)
                    if own == number:
                        parent[number] = own = other
                    elif other != own:
                        parent[other] = own
            strips[strip].append(number)
    groups: dict[int, list[int]] = {}
    for number in range(len(boxes)):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())
