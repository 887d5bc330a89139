"""The shapes of marks: which pixels they cover, at the edges of a picture too, and that they mix colours in integers."""

import hashlib

import numpy as np
import pytest

from vlmdata.images.mark_shapes import (
    DIGITS,
    Stroke,
    arrow_stroke,
    blend,
    box_stroke,
    ellipse_stroke,
    number_tag,
    outline,
    point_stroke,
    tag_size,
    triangle_stroke,
)

WIDTH, HEIGHT = 200, 150
BOX = (40.0, 30.0, 140.0, 110.0)


def covered(stroke: Stroke, least: int = 128) -> tuple[int, int, int, int]:
    """Return the edges x0, y0, x1, y1 of the pixels that a stroke covers at least half."""
    ys, xs = np.nonzero(stroke.mask >= least)
    return (
        int(xs.min()) + stroke.left,
        int(ys.min()) + stroke.top,
        int(xs.max()) + 1 + stroke.left,
        int(ys.max()) + 1 + stroke.top,
    )


@pytest.mark.parametrize("draw", [box_stroke, ellipse_stroke, triangle_stroke])
def test_a_frame_lies_half_outside_of_its_box(draw) -> None:
    edges = covered(draw(BOX, 4, WIDTH, HEIGHT))
    assert edges == pytest.approx((38, 28, 142, 112), abs=0 if draw is box_stroke else 2)


def test_a_rectangle_has_exactly_its_thickness() -> None:
    mask = box_stroke(BOX, 4, WIDTH, HEIGHT).mask
    assert mask.shape == (84, 104) and set(np.unique(mask)) == {0, 255}
    assert (mask[40] == 255).nonzero()[0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103]


def test_the_line_of_an_ellipse_and_of_a_triangle_has_about_its_thickness() -> None:
    for stroke in (ellipse_stroke(BOX, 6, WIDTH, HEIGHT), triangle_stroke(BOX, 6, WIDTH, HEIGHT)):
        column = stroke.mask[:, stroke.mask.shape[1] // 2].astype(int)
        assert column[len(column) // 2 :].sum() / 255 == pytest.approx(6, abs=0.6)


@pytest.mark.parametrize("draw", [box_stroke, ellipse_stroke, triangle_stroke])
@pytest.mark.parametrize("box", [(0.0, 0.0, 60.0, 60.0), (150.0, 100.0, 200.0, 150.0), (0.0, 0.0, 200.0, 150.0)])
def test_a_frame_at_an_edge_lies_within_the_picture(draw, box) -> None:
    x0, y0, x1, y1 = covered(draw(box, 6, WIDTH, HEIGHT))
    assert x0 >= 0 and y0 >= 0 and x1 <= WIDTH and y1 <= HEIGHT
    if draw is box_stroke:
        mask = draw(box, 6, WIDTH, HEIGHT).mask
        assert all((side == 255).all() for side in (mask[:6], mask[-6:], mask[:, :6], mask[:, -6:]))


def test_a_point_is_a_disc_around_its_middle() -> None:
    stroke = point_stroke(100.0, 70.0, 8.0, WIDTH, HEIGHT)
    assert covered(stroke) == pytest.approx((92, 62, 108, 78), abs=1)
    assert stroke.mask.sum() / 255 == pytest.approx(np.pi * 64, rel=0.05)


@pytest.mark.parametrize("tail", [(20.0, 20.0), (180.0, 20.0), (100.0, 140.0), (20.0, 75.0)])
def test_an_arrow_ends_at_its_tip_and_is_widest_at_its_head(tail) -> None:
    tip = (100.0, 75.0)
    stroke = arrow_stroke(tail, tip, 5, WIDTH, HEIGHT)
    ys, xs = np.nonzero(stroke.mask >= 128)
    along = np.hypot(xs + stroke.left + 0.5 - tip[0], ys + stroke.top + 0.5 - tip[1])
    assert along.min() <= 1.5
    assert ((along > 25) & (along < 45)).sum() / 20 == pytest.approx(5, abs=1.1)
    assert ((along > 10) & (along < 20)).sum() / 10 > 2 * 5  # the head


def test_a_shape_outside_of_the_picture_covers_nothing() -> None:
    assert not point_stroke(-50.0, 70.0, 8.0, WIDTH, HEIGHT).mask.size
    assert len(point_stroke(-50.0, 70.0, 8.0, WIDTH, HEIGHT).inside()[0]) == 0


def test_colours_are_mixed_by_alpha_and_only_under_the_mark() -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    blend(pixels, box_stroke(BOX, 4, WIDTH, HEIGHT), (255, 0, 100), 204)
    assert pixels[29, 60].tolist() == [224, 20, 100] and pixels[70, 90].tolist() == [100, 100, 100]
    assert (pixels != 100).any(axis=2).sum() == 104 * 84 - 96 * 76


def test_a_border_reaches_further_on_all_sides_but_not_out_of_the_picture() -> None:
    stroke = box_stroke(BOX, 4, WIDTH, HEIGHT)
    assert covered(outline(stroke, 2, WIDTH, HEIGHT)) == (36, 26, 144, 114)
    at_edge = outline(box_stroke((0.0, 0.0, 60.0, 150.0), 4, WIDTH, HEIGHT), 2, WIDTH, HEIGHT)
    assert covered(at_edge) == (0, 0, 64, 150) and at_edge.mask.shape == (150, 64)


def test_each_digit_is_different_and_lies_on_its_tag() -> None:
    wide, high = tag_size(640)
    shapes = set()
    for number in DIGITS:
        tag, digit = number_tag(number, 10, 20, 640)
        assert tag.mask.shape == (high, wide) and covered(tag) == (10, 20, 10 + wide, 20 + high)
        x0, y0, x1, y1 = covered(digit)
        assert x0 > 10 and y0 > 20 and x1 < 10 + wide and y1 < 20 + high
        shapes.add(digit.mask.tobytes())
    assert len(shapes) == 9 and tag_size(100) == (18, 22)


def test_marks_have_the_same_pixels_as_when_this_was_written() -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    strokes = [
        box_stroke(BOX, 4, WIDTH, HEIGHT),
        ellipse_stroke((61.3, 20.7, 190.2, 99.9), 5, WIDTH, HEIGHT),
        triangle_stroke((5.5, 60.1, 66.6, 148.0), 3, WIDTH, HEIGHT),
        arrow_stroke((180.0, 140.0), (101.7, 66.4), 4, WIDTH, HEIGHT),
        point_stroke(20.2, 20.8, 7.7, WIDTH, HEIGHT),
    ]
    for n, stroke in enumerate(strokes):
        blend(pixels, stroke, (40 * n, 255 - 40 * n, 30), 210)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "985ab7a4075fe0ae"
