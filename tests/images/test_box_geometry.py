"""Boxes as fractions of the original and the part that an image shows agree with the pixels of the boxes, in every mode."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from vlmdata.images.box_geometry import Box, composed, fractions, has_place, part_of
from vlmdata.images.resize import MODES, ResizeRule, transform

SIDES, NEW = st.integers(1, 900), {"phash": None, "view": None, "original_boxes": None}
SIZES = {"width": None, "height": None, "original_width": None, "original_height": None}


@st.composite
def rules(draw: st.DrawFn) -> ResizeRule:
    return ResizeRule(draw(st.sampled_from(MODES)), draw(st.integers(1, 500)), draw(st.booleans()))  # type: ignore[arg-type]


@st.composite
def corners(draw: st.DrawFn) -> Box:
    x, y = (sorted(draw(st.tuples(*[st.floats(-100, 1000, width=32)] * 2))) for _ in range(2))
    return x[0], y[0], x[1], y[1]


def pixels(box: Box | None, view: Box | None, width: int, height: int) -> Box | None:
    """Return a box, given as fractions of the original, in pixels of an image that shows `view`, cut at its edges."""
    if box is None:
        return None
    x0, y0, x1, y1 = view or (0.0, 0.0, 1.0, 1.0)
    at = [(box[0] - x0) / (x1 - x0), (box[1] - y0) / (y1 - y0), (box[2] - x0) / (x1 - x0), (box[3] - y0) / (y1 - y0)]
    left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in at)
    return left * width, top * height, right * width, bottom * height


def are_equal(expected: Box | None, found: Any) -> bool:
    """Return whether two boxes are equal. A box of which less than a millionth of a pixel is left may be missing in one."""
    if expected is None or found is None:
        one = expected or found
        return one is None or min(one[2] - one[0], one[3] - one[1]) < 1e-6
    return bool(found == pytest.approx(expected, abs=1e-6))


@settings(max_examples=300, deadline=None)
@given(rules(), SIDES, SIDES, st.lists(corners(), max_size=4))
def test_fractions_of_the_original_and_the_view_give_the_boxes(
    rule: ResizeRule, wide: int, high: int, boxes: list[Box]
) -> None:
    change = transform(rule, wide, high)
    originals = fractions(boxes, wide, high)
    found = [pixels(box, change.view(), *change.output) for box in originals]
    assert all(map(are_equal, found, change.boxes(boxes)))


@settings(max_examples=300, deadline=None)
@given(rules(), rules(), SIDES, SIDES, st.lists(corners(), max_size=4))
def test_two_resizes_are_one_composition(a: ResizeRule, b: ResizeRule, wide: int, high: int, boxes: list[Box]) -> None:
    first = transform(a, wide, high)
    second = transform(b, *first.output)
    once = composed({**NEW, **SIZES}, fractions(boxes, wide, high), first.view())
    twice = composed({**NEW, **SIZES, **once, "phash": 1}, fractions(first.boxes(boxes), *first.output), second.view())
    assert twice["original_boxes"] == fractions(boxes, wide, high)
    found = [pixels(box, twice["view"], *second.output) for box in twice["original_boxes"] or []]  # type: ignore[arg-type]
    assert all(map(are_equal, found, second.boxes(first.boxes(boxes))))


def test_a_view_is_none_exactly_for_the_whole_original() -> None:
    assert transform(ResizeRule("keep_ratio", 50), 300, 100).view() is None
    assert transform(ResizeRule("center_crop", 50), 100, 100).view() is None
    assert transform(ResizeRule("center_crop", 50), 100, 50).view() == (0.25, 0.0, 0.75, 1.0)
    assert transform(ResizeRule("border", 100), 100, 50).view() == (0.0, -0.5, 1.0, 1.5)


def test_a_crop_of_a_border_may_show_the_whole_again() -> None:
    assert part_of((0.0, -0.5, 1.0, 1.5), (0.0, 0.25, 1.0, 0.75)) is None
    assert part_of((0.25, 0.0, 0.75, 1.0), (0.5, 0.0, 1.0, 1.0)) == (0.5, 0.0, 0.75, 1.0)


@pytest.mark.parametrize(
    "known", [{"phash": 7}, {"width": 50, "height": 50, "original_width": 100, "original_height": 50}], ids=str
)
def test_nothing_is_invented_for_an_image_that_was_stored_without_its_geometry(known: dict[str, Any]) -> None:
    found = composed({**NEW, **SIZES, **known}, [(0.0, 0.0, 1.0, 1.0)], (0.1, 0.1, 0.2, 0.2))
    assert found == {"original_boxes": None, "view": None}


REVERSED = [(30.0, 10.0, 20.0, 20.0), (10.0, 30.0, 20.0, 20.0), (float("nan"), 0.0, 1.0, 1.0)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("box", REVERSED, ids=str)
def test_a_box_without_a_known_place_stays_as_it_is_and_never_vanishes(mode: str, box: Box) -> None:
    change = transform(ResizeRule(mode, 8), 100, 40)  # type: ignore[arg-type]
    (found,) = change.boxes([box])
    assert found is box
    assert not has_place(box)
    assert fractions([box], 100, 40) == [None]


def test_a_box_beyond_the_picture_is_not_in_its_border() -> None:
    change = transform(ResizeRule("border", 100), 100, 50)
    assert change.boxes([(-10, -10, 20, 20), (0, -20, 10, -5)]) == [(0.0, 25.0, 20.0, 45.0), None]
