"""A model gets captions and boxes as lines of text."""

import math

from tests.rows import document
from vlmdata.generation.scene_text import box_lines, captions_of, labels_of


def row(boxes=None, labels=None, width=200, height=100, **text):
    image = {"boxes": boxes, "box_labels": labels, "width": width, "height": height}
    return {**document(image, "a"), "texts": [None, {"text": "a", "alternatives": None, **text}]}


def test_captions_are_the_text_and_its_alternatives_without_repetitions():
    one = row(text=" a\n dog ", alternatives=["a dog", "", None, "\u200b", "two {captions} dogs", "a \ud800 cat", "more"])
    assert captions_of(one, 3, 3) == ["a dog", "two {captions} dogs", "a ? cat"]
    assert captions_of(one, 9, 1) == ["a", "two", "more"]
    assert captions_of({"texts": None}, 5, 9) == []


def test_boxes_are_fractions_of_the_picture_with_three_decimals():
    boxes = [[20.0, 10.0, 100.0, 50.0], [-5.0, 0.0, 300.0, 100.0], [66.66, 1.0, 133.33, 99.0]]
    assert box_lines(row(boxes, ["dog", " a\nlamp ", "cat"]), 9) == [
        "dog: [0.100, 0.100, 0.500, 0.500]",
        "a lamp: [0.000, 0.000, 1.000, 1.000]",
        "cat: [0.333, 0.010, 0.667, 0.990]",
    ]
    assert len(box_lines(row(boxes, ["a"] * 3), 2)) == 2 and box_lines(row(boxes, ["a"] * 3), 0) == []


def test_boxes_without_a_label_an_area_or_a_number_are_left_out():
    good = [0.0, 0.0, 10.0, 10.0]
    boxes = [good, [5.0, 5.0, 5.0, 9.0], [math.nan, 0.0, 9.0, 9.0], [0.0, None, 9.0, 9.0], [300.0, 0.0, 400.0, 9.0], None, good]
    one = row(boxes, ["", "b", "c", "d", "e", "f", "g"])
    assert box_lines(one, 9) == ["g: [0.000, 0.000, 0.050, 0.100]"]
    assert labels_of(one) == ["e", "g"]


def test_there_are_no_lines_without_labels_or_without_the_size_of_the_picture():
    good = [[0.0, 0.0, 10.0, 10.0]]
    assert box_lines(row(good, ["a"], width=None), 9) == box_lines(row(good, ["a"], height=0), 9) == []
    assert [box_lines(one, 9) for one in (row(good), row(good, ["a", "b"]), row(None, ["a"]), document("text"))] == [[]] * 4
