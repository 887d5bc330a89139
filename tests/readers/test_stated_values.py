import json

import pyarrow as pa
import pytest

from vlmdata.readers.stated_values import BOXES, LABELS, box_columns, labelled_boxes

GOOD = [1.0, 2.0, 3.0, 4.0]


NONE = [[1, 2, 3], [float("nan"), 0, 1, 1], [0, 0, float("inf"), 1], [0, 0, 10**400, 1], ["a"] * 4, None, 7]


@pytest.mark.parametrize("bad", NONE)
def test_a_box_that_is_not_four_finite_numbers_is_left_out_with_its_label(bad: object) -> None:
    for column in ([[bad, GOOD]], [json.dumps([bad, GOOD])]):
        for labels in (["a", "b"], '["a", "b"]'):
            boxes, names, unfit = box_columns(column, [labels])
            assert (boxes.to_pylist(), names.to_pylist(), unfit) == ([[GOOD]], [["b"]], {})
    assert box_columns([json.dumps([bad])])[0].to_pylist() == [None]


@pytest.mark.parametrize("text", ["", "x", "{}", "7", "null", "[" * 100_000])
def test_text_without_boxes_gives_a_row_without_boxes(text: str) -> None:
    boxes, labels, unfit = box_columns(pa.array([text, None]))
    assert boxes.equals(pa.nulls(2, BOXES)) and labels.equals(pa.nulls(2, LABELS)) and unfit == {}


def test_a_share_whose_product_is_not_finite_is_left_out() -> None:
    assert labelled_boxes([[0, 0, 1e308, 1], [0, 0, 0.5, 1]], ["a", "b"], 100, 10) == ([[0, 0, 50, 10]], ["b"])


HOSTILE = [  # labels of two boxes, and what is read
    (["a", None], ["a", None]),
    (["", " \n"], None),
    (["half \ud800", "\0\x1b[31m\u202e"], ["half ?", "\0\x1b[31m\u202e"]),
    (["x" * 1_000_000, "y"], ["x" * 1_000_000, "y"]),
    *[(wrong, None) for wrong in (["a"], ["a", "b", "c"], ["a", 5], [1, 2], [["a"], "b"], {"a": "b"}, "dog", 7, True, None)],
]


@pytest.mark.parametrize(("labels", "read"), HOSTILE)
def test_labels_that_do_not_fit_their_boxes_count_as_unknown(labels: object, read: object) -> None:
    boxes, names = labelled_boxes([GOOD, GOOD], labels)
    assert (boxes, names) == ([GOOD, GOOD], read)
    assert pa.array([names], LABELS).to_pylist() == [read]


def test_labels_of_a_list_that_do_not_fit_are_returned_and_empty_ones_are_not() -> None:
    wrong = [["a", "b"], "dog", 7, '["a", "b"]', [3]]
    nothing = [None, "", " null ", "[]", [None], [""]]
    boxes, labels, unfit = box_columns([[GOOD]] * (len(wrong) + len(nothing)), [*wrong, *nothing])
    assert labels.null_count == len(labels) and boxes.null_count == 0 and unfit == dict(enumerate(wrong))


def test_a_null_of_a_sample_keeps_its_place_and_label() -> None:
    assert labelled_boxes([None, GOOD], ["a", "b"], keeps_null=True) == ([None, GOOD], ["a", "b"])
    assert labelled_boxes([None], ["a"], keeps_null=True) == ([None], ["a"])


def test_a_hundred_thousand_boxes_keep_their_labels() -> None:
    places = [[float(number), 0.0, number + 1.0, 1.0] for number in range(100_000)]
    labels = [f"object {number}" for number in range(100_000)]
    assert labelled_boxes(json.dumps(places), json.dumps(labels)) == (places, labels)
