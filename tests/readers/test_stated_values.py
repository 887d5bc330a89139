import json

import pyarrow as pa
import pytest

from vlmdata.readers.stated_values import BOXES, box_column

GOOD = [1.0, 2.0, 3.0, 4.0]


NONE = [[1, 2, 3], [float("nan"), 0, 1, 1], [0, 0, float("inf"), 1], [0, 0, 10**400, 1], ["a"] * 4, None, 7]


@pytest.mark.parametrize("bad", NONE)
def test_a_box_that_is_not_four_finite_numbers_is_left_out(bad: object) -> None:
    for column in ([[bad, GOOD]], [json.dumps([bad, GOOD])], [json.dumps([bad])]):
        assert box_column(column).to_pylist() == [None if column == [json.dumps([bad])] else [GOOD]]


@pytest.mark.parametrize("text", ["", "x", "{}", "7", "null", "[" * 100_000])
def test_text_without_boxes_gives_a_row_without_boxes(text: str) -> None:
    assert box_column(pa.array([text, None])).equals(pa.nulls(2, BOXES))
