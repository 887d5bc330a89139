"""Chooses boxes, kinds and colours of marks for a picture, and draws the marks on its pixels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlmdata.draws import Draws
from vlmdata.grounding.marked_boxes import Place, crossed, is_doubtful, overlap, way_out
from vlmdata.images.mark_colours import COLOURS, border_of, is_clear, rare_colours
from vlmdata.images.mark_shapes import (
    HEAD,
    Stroke,
    arrow_stroke,
    blend,
    box_stroke,
    ellipse_stroke,
    number_tag,
    outer,
    outline,
    point_stroke,
    tag_size,
    triangle_stroke,
)

KINDS = ("box", "ellipse", "triangle", "point", "arrow")
FRAMES: Mapping[str, Callable[..., Stroke]] = {"box": box_stroke, "ellipse": ellipse_stroke, "triangle": triangle_stroke}
MOST_MARKS = 9  # numbers have one digit
THINNEST = 3  # pixels; a JPEG stores colours at half the resolution, so a thinner line would lose its colour
THINNEST_ARROW = 4  # pixels; it has only one line, where a frame has several
OF_SIDE = 1 / 12  # the greatest thickness of a frame, as a share of the box's shorter side
POINT = 1.4  # radius of a point, as a multiple of the thickness
APART = 0.3  # boxes that overlap by more are not both marked
TAG_SHARE = 0.4  # a number's tag has at most this share of its box's sides
NEAR_CENTRE = 0.1  # how far a point or a tip may lie from the middle of its box, as a share of the box's sides
ANGLES = 16
LENGTH = (0.12, 0.25)  # of an arrow, as shares of the picture's longer side
LONGEST = 0.4  # of an arrow that begins outside of a large box
SHORTEST = 2.5  # of an arrow, as a multiple of its head


@dataclass(frozen=True)
class MarkRules:
    """What is drawn: weights of the kinds, marks per picture, thickness (share of the picture's longer side) and alpha."""

    kinds: Mapping[str, float]
    max_marks: int
    thickness: tuple[float, float]
    alpha: tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """A mark as it was drawn. Places are fractions of the picture, thickness is in its pixels, and alpha is 0 to 1."""

    kind: str
    box: int  # number of the box
    label: str
    place: tuple[float, float, float, float]  # the box
    colour: str
    alpha: float
    thickness: int
    border: str | None  # black or white, where no colour alone stands out
    number: int | None  # of several marks on the picture
    tip: tuple[float, float] | None = None  # of an arrow, or the middle of a point
    tail: tuple[float, float] | None = None  # of an arrow

    def as_json(self) -> dict[str, Any]:
        """Return an object for JSON without empty fields."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class _Picture:
    pixels: np.ndarray
    places: Sequence[Place]
    rules: MarkRules
    draws: Draws

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def longest(self) -> int:
        return max(self.width, self.height)

    def fraction(self, x: float, y: float) -> tuple[float, float]:
        return round(x / self.width, 4), round(y / self.height, 4)


def place_marks(
    pixels: np.ndarray, places: Sequence[Place], chosen: Sequence[Place], rules: MarkRules, draws: Draws
) -> tuple[list[Mark], Counter[str]]:
    """Draw marks at some of the chosen places on (H, W, 3) uint8 pixels, in place, and return them.

    `places` are all places of the picture, `chosen` those that a mark may show. Several marks are boxes with numbers; one mark
    is of any kind. If nothing can be drawn, the list is empty, and the counts say how many places each reason refused.
    """
    picture = _Picture(pixels, places, rules, draws)
    order = draws.order("boxes", chosen)
    count = 1 + int(draws.number("marks") * rules.max_marks)
    several = _separate(order, picture)[:count] if count > 1 else []
    if len(several) > 1:
        return _numbered(several, picture), Counter()
    refused: Counter[str] = Counter()
    free = rare_colours(pixels) if order else []
    for place in order:
        mark = _single(place, free, picture)
        if isinstance(mark, Mark):
            return [mark], Counter()
        refused[mark] += 1
    return [], refused


def _separate(order: Sequence[Place], picture: _Picture) -> list[Place]:
    """Return places of which none is in doubt beside the others, and which have room for a number."""
    wide, high = tag_size(picture.longest)
    kept: list[Place] = []
    if not picture.rules.kinds.get("box", 0) > 0:
        return kept
    for place in order:
        x0, y0, x1, y1 = place.box
        has_room = x1 - x0 >= wide / TAG_SHARE and y1 - y0 >= high / TAG_SHARE
        tag = (x0, y0, x0 + wide, y0 + high)
        tags = [(one.box[0], one.box[1], one.box[0] + wide, one.box[1] + high) for one in kept]
        if (
            has_room
            and not any(overlap(tag, one) for one in tags)
            and all(overlap(place.box, one.box) <= APART for one in kept)
        ):
            kept.append(place)
    return kept


def _thickness(place: Place, picture: _Picture) -> int:
    low, high = picture.rules.thickness
    wanted = round(picture.draws.between("thickness", low, high) * picture.longest)
    return max(THINNEST, min(wanted, int(place.shorter * OF_SIDE)))


def _numbered(some: Sequence[Place], picture: _Picture) -> list[Mark]:
    names = picture.draws.order("colour", list(COLOURS))
    marks, frames = [], []
    for number, place in enumerate(some, 1):
        thickness = _thickness(place, picture)
        stroke = box_stroke(place.box, thickness, picture.width, picture.height)
        found = _coloured(stroke, names, picture)
        name = found[0] if found else names[0]
        names = [one for one in names if one != name] or list(COLOURS)
        frames.append((stroke, outer(place.box, thickness, picture.width, picture.height)))
        marks.append(_mark("box", place, name, found[1] if found else 255, thickness, found is None, picture, number))
    for mark, (stroke, _) in zip(marks, frames, strict=True):
        _draw(stroke, mark, picture)
    for mark, (_, edges) in zip(marks, frames, strict=True):
        tag, digit = number_tag(mark.number or 0, edges[0], edges[1], picture.longest)
        blend(picture.pixels, tag, COLOURS[mark.colour], 255)
        blend(picture.pixels, digit, border_of(mark.colour), 255)
    return marks


def _single(place: Place, free: Sequence[str], picture: _Picture) -> Mark | str:
    """Draw one mark at a place and return it, or return why none can be drawn."""
    if not free:
        return "no_colour"
    names = picture.draws.order("colour", free)
    for kind in picture.draws.by_weight("kind", picture.rules.kinds):
        made = _shape(kind, place, picture)
        if made is None:
            continue
        stroke, thickness, tip, tail = made
        found = _coloured(stroke, names, picture)
        mark = _mark(kind, place, found[0] if found else names[0], found[1] if found else 255, thickness, not found, picture)
        _draw(stroke, mark, picture)
        return replace(mark, tip=tip and picture.fraction(*tip), tail=tail and picture.fraction(*tail))
    return "no_kind"


_Shape = tuple[Stroke, int, tuple[float, float] | None, tuple[float, float] | None]


def _shape(kind: str, place: Place, picture: _Picture) -> _Shape | None:
    """Return the stroke of a mark, its thickness, its tip and its tail, or None if this kind does not fit here."""
    width, height = picture.width, picture.height
    thickness = _thickness(place, picture)
    if kind in FRAMES:
        if kind == "triangle" and place.shorter < 10 * thickness:
            thickness = max(THINNEST, int(place.shorter / 10))
        return FRAMES[kind](place.box, thickness, width, height), thickness, None, None
    thickness = max(THINNEST_ARROW, thickness)
    x0, y0, x1, y1 = place.box
    x, y = place.centre
    x += (x1 - x0) * picture.draws.between("x", -NEAR_CENTRE, NEAR_CENTRE)
    y += (y1 - y0) * picture.draws.between("y", -NEAR_CENTRE, NEAR_CENTRE)
    if is_doubtful(x, y, place, picture.places):
        return None
    if kind == "point":
        return point_stroke(x, y, POINT * thickness, width, height), thickness, (x, y), None
    tail = _tail((x, y), thickness, place, picture)
    return tail and (arrow_stroke(tail, (x, y), thickness, width, height), thickness, (x, y), tail)


def _tail(tip: tuple[float, float], thickness: int, place: Place, picture: _Picture) -> tuple[float, float] | None:
    """Return where an arrow begins: within the picture, outside of its box if it can, and with few other things on its way."""
    best: tuple[int, bool] | None = None
    found = None
    usual = picture.draws.between("length", *LENGTH) * picture.longest
    for turn in picture.draws.order("angle", range(ANGLES)):
        angle = 2 * math.pi * turn / ANGLES
        dx, dy = math.cos(angle), math.sin(angle)
        shortest = SHORTEST * HEAD * thickness
        out = way_out(*tip, dx, dy, place.box) + HEAD * thickness
        length = max(usual, shortest, out if out <= LONGEST * picture.longest else 0)
        room = way_out(*tip, dx, dy, (0.0, 0.0, float(picture.width), float(picture.height))) - 2 * thickness
        length = min(length, room)
        if length < shortest:
            continue
        tail = tip[0] + dx * length, tip[1] + dy * length
        cost = crossed(tail, tip, place, picture.places), length < out
        if best is None or cost < best:
            best, found = cost, tail
    return found


def _coloured(stroke: Stroke, names: Sequence[str], picture: _Picture) -> tuple[str, int] | None:
    """Return the first colour and alpha (0 to 255) that stand out under a stroke, or None."""
    alpha = round(255 * picture.draws.between("alpha", *picture.rules.alpha))
    for value in dict.fromkeys((alpha, 255)):
        for name in names:
            if is_clear(picture.pixels, stroke, name, value):
                return name, value
    return None


def _mark(
    kind: str,
    place: Place,
    colour: str,
    alpha: int,
    thickness: int,
    has_border: bool,
    picture: _Picture,
    number: int | None = None,
) -> Mark:
    border = ("white" if any(border_of(colour)) else "black") if has_border else None
    edges = (*picture.fraction(*place.box[:2]), *picture.fraction(*place.box[2:]))
    label = place.name or ""
    return Mark(kind, place.number, label, edges, colour, round(alpha / 255, 3), thickness, border, number)


def _draw(stroke: Stroke, mark: Mark, picture: _Picture) -> None:
    if mark.border:
        around = outline(stroke, max(1, mark.thickness // 3), picture.width, picture.height)
        blend(picture.pixels, around, border_of(mark.colour), 255)
    blend(picture.pixels, stroke, COLOURS[mark.colour], round(mark.alpha * 255))
