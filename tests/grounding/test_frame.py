import pytest

from vlmdata.grounding.frame import Frame, Shown

HALF = (0.25, 0.25, 0.75, 0.75)


def test_a_plain_resize_keeps_fractions() -> None:
    assert Frame(224, 100).box(HALF) == (HALF, 1.0)


def test_padding_moves_and_shrinks_a_box() -> None:
    padded = Frame(200, 100).then(200, 200, (1, 0, 0, 0, 0.5, 0.25))
    box, visible = padded.box(HALF)
    assert box == pytest.approx((0.25, 0.375, 0.75, 0.625)) and visible == 1.0


def test_a_crop_clips_a_box_and_says_how_much_is_visible() -> None:
    left_half = Frame(200, 100).then(100, 100, (2, 0, 0, 0, 1, 0))
    box, visible = left_half.box(HALF)
    assert box == pytest.approx((0.5, 0.25, 1.0, 0.75)) and visible == pytest.approx(0.5)
    assert left_half.box((0.6, 0, 0.9, 1)) is None


def test_a_quarter_turn_swaps_the_sides_of_a_box() -> None:
    turned = Frame(200, 100).then(100, 200, (0, -1, 1, 1, 0, 0))  # clockwise
    box, visible = turned.box((0.0, 0.0, 0.5, 0.25))
    assert box == pytest.approx((0.75, 0.0, 1.0, 0.5)) and visible == pytest.approx(1.0)


def test_changes_follow_each_other() -> None:
    mirrored = Frame(10, 10).then(10, 10, (-1, 0, 1, 0, 1, 0))
    again = mirrored.then(10, 10, (-1, 0, 1, 0, 1, 0))
    assert again.to_picture == pytest.approx(Frame(10, 10).to_picture)


def test_a_box_that_is_not_known_or_hardly_visible_is_none() -> None:
    shown = Shown([None, HALF], Frame(200, 100).then(100, 100, (2, 0, 0, 0, 1, 0)))
    assert shown.box(0) is None and shown.box(7) is None
    assert shown.box(1, min_visible=0.6) is None and shown.box(1, min_visible=0.4) is not None
