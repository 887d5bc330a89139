"""Boxes as fractions of the stored image, with the share of each that a crop has left."""

from typing import Any

import pytest

from vlmdata.grounding.stored_boxes import StoredBox, stored_boxes

CROPPED: dict[str, Any] = {  # the right half of an original
    "width": 100,
    "height": 50,
    "boxes": [[0.0, 0.0, 50.0, 50.0], None, [10.0, 10.0, 20.0, 20.0], [30.0, 10.0, 20.0, 20.0]],
    "original_boxes": [[0.25, 0.0, 0.75, 1.0], [0.0, 0.0, 0.5, 1.0], [0.55, 0.2, 0.6, 0.4], None],
    "view": [0.5, 0.0, 1.0, 1.0],
}


def test_a_cut_box_has_the_share_that_the_crop_left_and_an_unknown_one_is_none() -> None:
    found = stored_boxes(CROPPED)
    assert found == [StoredBox((0.0, 0.0, 0.5, 1.0), 0.5), None, StoredBox((0.1, 0.2, 0.2, 0.4), pytest.approx(1.0)), None]


@pytest.mark.parametrize("change", [{"original_boxes": None}, {"original_boxes": []}, {"view": None}])
def test_a_share_that_is_not_known_is_one(change: dict[str, Any]) -> None:
    found = stored_boxes({**CROPPED, **change})
    assert found is not None
    assert [one and one.visible for one in found] == [1.0, None, 1.0, None]


def test_a_border_hides_nothing() -> None:
    image = {"width": 8, "height": 16, "boxes": [[0, 4, 8, 12]], "original_boxes": [[0, 0, 1, 1]], "view": [0, -0.5, 1, 1.5]}
    assert stored_boxes(image) == [StoredBox((0.0, 0.25, 1.0, 0.75), 1.0)]


def test_without_the_size_of_the_image_no_fraction_is_known() -> None:
    assert stored_boxes({**CROPPED, "width": None}) is None
    assert stored_boxes({}) is None
    assert stored_boxes({"width": 3, "height": 3}) == []
