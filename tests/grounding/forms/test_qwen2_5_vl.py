"""Boxes are JSON in pixels of the model's picture."""

import json

from tests.grounding.made import grounded, shown, written
from vlmdata.grounding.write import plain_text, read_text, write_text

LABEL = 'a "dog"\n</ref> ; \\ {x}'


def test_pixels_are_those_of_the_picture_that_the_model_gets() -> None:
    text, grounding = grounded("refer", [("dog", [0])])
    pieces = write_text(text, grounding, shown(width=1092, height=812), "qwen2_5_vl")
    assert pieces is not None
    assert plain_text(pieces, "qwen2_5_vl") == '```json\n[\n\t{"bbox_2d": [136, 203, 546, 609], "label": "dog"}\n]\n```'


def test_the_last_pixel_is_the_side_less_one() -> None:
    answer = written("qwen2_5_vl", "refer", [("dog", [0])], [(0.0, 0.0, 1.0, 1.0)])
    assert json.loads(answer.strip("`json"))[0]["bbox_2d"] == [0, 0, 639, 479]


def test_a_label_is_a_json_string_and_comes_back_as_it_was() -> None:
    answer = written("qwen2_5_vl", "detect", [(LABEL, [0]), ", ", ("cats", [0, 1])])
    assert [one["label"] for one in json.loads(answer.strip("`json"))] == [LABEL, "cats", "cats"]
    assert [one.phrase for one in read_text(answer, "qwen2_5_vl", 640, 480).found] == [LABEL, "cats"]


def test_a_question_asks_for_json_and_absent_objects_are_an_empty_list() -> None:
    assert written("qwen2_5_vl", "refer", ["Locate ", ("the dog", []), "."]) == (
        "Locate the dog. Output its bbox coordinates using JSON format."
    )
    assert written("qwen2_5_vl", "detect", ["There are none."]) == "```json\n[]\n```"


def test_objects_of_other_forms_are_read_and_broken_ones_are_not() -> None:
    text = (
        '{"label": "a", "bbox_2d": [1, 2, 3.5, 4]} {"bbox_2d": [1, 2, 3, 4]} {"bbox_2d": "x"} {"bbox_2d": [1, 2, 9999, 4]} {"'
    )
    found = read_text(text, "qwen2_5_vl", 10, 10)
    assert [(one.phrase, one.boxes) for one in found.found] == [
        ("a", ((0.1, 0.2, 0.35, 0.4),)),
        ("", ((0.1, 0.2, 0.3, 0.4),)),
    ]
    assert read_text('{"bbox_2d": [1, 2, 3, 4], "label": "\\ud800"}', "qwen2_5_vl", 10, 10).found[0].phrase == "\ufffd"
