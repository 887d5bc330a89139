"""Boxes are JSON in thousandths."""

from tests.grounding.made import written
from vlmdata.grounding.write import read_text


def test_an_answer_is_a_list_in_a_block_of_code() -> None:
    lines = '\t{"bbox_2d": [125, 250, 500, 750], "label": "dog"},\n\t{"bbox_2d": [600, 100, 900, 400], "label": "cat"}'
    assert written("qwen3_vl", "detect", [("dog", [0]), ", ", ("cat", [1])]) == f"```json\n[\n{lines}\n]\n```"


def test_a_text_has_its_boxes_behind_words_and_is_read_without_them() -> None:
    text = written("qwen3_vl", "mention", ["A ", ("dog", [0]), " and ", ("cats", [0, 1]), "."])
    dog, cats, cat = (
        f'{{"bbox_2d": {box}, "label": "{label}"}}'
        for box, label in (
            ("[125, 250, 500, 750]", "dog"),
            ("[125, 250, 500, 750]", "cats"),
            ("[600, 100, 900, 400]", "cats"),
        )
    )
    assert text == f"A dog {dog} and cats [{cats}, {cat}]."
    assert read_text(text, "qwen3_vl", 9, 9).text == "A dog and cats."


def test_a_question_asks_for_json() -> None:
    assert written("qwen3_vl", "detect", ["Find ", ("dog", []), "."]) == "Find dog. Report bbox coordinates in JSON format."
