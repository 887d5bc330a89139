"""Boxes of a displayed page: (x0, y0, x1, y1) in points, with x to the right and y down from the top left corner."""

from __future__ import annotations

from collections.abc import Iterable

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

    The boxes are swept from left to right, so the time grows with the boxes that overlap in x.
    """
    parent = list(range(len(boxes)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    active: list[int] = []
    for number in sorted(range(len(boxes)), key=lambda one: boxes[one][0]):
        box = boxes[number]
        active = [one for one in active if boxes[one][2] + within >= box[0]]
        for one in active:
            if boxes[one][1] - within <= box[3] and box[1] - within <= boxes[one][3]:
                parent[root(one)] = root(number)
        active.append(number)
    groups: dict[int, list[int]] = {}
    for number in range(len(boxes)):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())
