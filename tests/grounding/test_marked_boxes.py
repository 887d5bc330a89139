"""Which boxes a mark can show without doubt. All expected values follow from the drawn boxes by hand."""

import pytest

from vlmdata.grounding.marked_boxes import Limits, Place, crossed, is_doubtful, overlap, places, usable, way_out, whole_boxes

ALL = Limits(min_area=0.0, max_area=1.0, min_visible=0.0)


def place(*edges: float, name: str | None = "dog", number: int = 0) -> Place:
    x0, y0, x1, y1 = edges
    return Place(number, (x0, y0, x1, y1), name)


def test_places_are_cut_at_the_edges_and_keep_their_numbers() -> None:
    boxes = [
        None,
        [-5.0, 10.0, 50.0, 300.0],
        [1.0, 2.0, None, 3.0],
        [9.0, 9.0, 3.0, 3.0],
        [200.0, 0.0, 300.0, 9.0],
        [0, 0, float("inf"), 9],
    ]
    assert places(boxes, ["a", "b", "c", "d", "e", "f"], 200, 100) == [Place(1, (0.0, 10.0, 50.0, 100.0), "b")]
    assert places([[1.0, 2.0, 3.0]], ["a"], 200, 100) == []


def test_overlap_is_intersection_over_union() -> None:
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1


@pytest.mark.parametrize(
    ("one", "limits", "reason"),
    [
        (place(0, 0, 32, 32), ALL, None),
        (place(0, 0, 31, 50), ALL, "min_side"),
        (place(0, 0, 50, 50, name=None), ALL, "no_label"),
        (place(0, 0, 50, 40), Limits(0.1, 1.0, 0.0), None),
        (place(0, 0, 50, 39), Limits(0.1, 1.0, 0.0), "min_area"),
        (place(0, 0, 160, 100), Limits(0.0, 0.8, 0.0), None),
        (place(0, 0, 161, 100), Limits(0.0, 0.8, 0.0), "max_area"),
    ],
)
def test_small_large_and_nameless_places_are_refused(one: Place, limits: Limits, reason: str | None) -> None:
    kept, refused = usable([one], [], 200, 100, limits)
    assert (kept, dict(refused)) == (([one], {}) if reason is None else ([], {reason: 1}))


def test_a_place_that_a_crop_has_cut_by_more_than_half_is_refused() -> None:
    half = Limits(0.0, 1.0, 0.5)
    one = place(0, 0, 50, 50)
    assert usable([one], [(-50.0, 0.0, 50.0, 50.0)], 200, 100, half)[0] == [one]
    assert usable([one], [(-51.0, 0.0, 50.0, 50.0)], 200, 100, half)[1] == {"min_visible": 1}
    assert usable([one], [None], 200, 100, half)[0] == [one]


def test_whole_boxes_are_found_through_the_view() -> None:
    assert whole_boxes([[0.0, 0.0, 0.5, 1.0], None], None, 200, 100) == [(0.0, 0.0, 100.0, 100.0), None]
    # the image shows the right half of the original: its left half lies before the image
    assert whole_boxes([[0.25, 0.0, 0.75, 1.0]], [0.5, 0.0, 1.0, 1.0], 200, 100) == [(-100.0, 0.0, 100.0, 100.0)]
    assert whole_boxes([[0.0, 0.0, 1.0, 1.0]], [0.5, 0.0, 0.5, 1.0], 200, 100) == [None]
    assert whole_boxes([[0.0, float("nan"), 1.0, 1.0]], None, 200, 100) == [None]


def test_two_things_at_one_place_are_refused_and_two_of_a_kind_are_not() -> None:
    dog, cat, other = place(0, 0, 60, 60), place(0, 0, 60, 90, name="cat", number=1), place(0, 0, 60, 90, name="Dog", number=1)
    assert usable([dog, cat], [], 200, 100, ALL) == ([], {"same_place": 2})
    assert usable([dog, other], [], 200, 100, ALL) == ([dog, other], {})
    nameless = place(0, 0, 60, 90, name=None, number=1)
    assert usable([dog, nameless], [], 200, 100, ALL) == ([], {"same_place": 1, "no_label": 1})
    apart = place(0, 0, 60, 121, name="cat", number=1)  # an overlap below one half
    assert usable([dog, apart], [], 200, 200, ALL)[0] == [dog, apart]


def test_a_point_is_doubtful_in_a_smaller_thing_and_clear_before_a_much_larger_one() -> None:
    person, ball = place(0, 0, 100, 100, name="person"), place(30, 30, 60, 60, name="ball", number=1)
    assert is_doubtful(50, 50, person, [person, ball]) and not is_doubtful(80, 80, person, [person, ball])
    assert not is_doubtful(50, 50, ball, [person, ball])
    horse = place(0, 20, 100, 120, name="horse", number=1)  # as large as the person
    assert is_doubtful(50, 50, person, [person, horse]) and is_doubtful(50, 50, horse, [person, horse])
    assert not is_doubtful(50, 50, person, [person, place(30, 30, 60, 60, name="person", number=1)])


def test_a_line_crosses_other_things_but_not_those_around_its_tip() -> None:
    dog, car = place(0, 0, 40, 40), place(60, 0, 80, 100, name="car", number=1)
    assert crossed((120, 20), (20, 20), dog, [dog, car]) == 1
    assert crossed((20, 120), (20, 20), dog, [dog, car]) == 0
    room = place(0, 0, 200, 200, name="room", number=2)
    assert crossed((120, 20), (20, 20), dog, [dog, car, room]) == 1
    assert crossed((120, 150), (50, 150), dog, [dog, car]) == 0
    assert crossed((50, 90), (90, 110), dog, [dog, car]) == 1  # it meets the lower right part of the car


def test_the_way_out_of_a_box_is_the_nearest_edge_in_a_direction() -> None:
    assert way_out(30, 40, 1, 0, (0, 0, 100, 50)) == 70
    assert way_out(30, 40, -1, 0, (0, 0, 100, 50)) == 30
    assert way_out(30, 40, 0, 1, (0, 0, 100, 50)) == 10
    assert way_out(30, 40, 0.6, 0.8, (0, 0, 100, 50)) == pytest.approx(12.5)
