"""The texts are those of the examples in the model's documentation."""

from tests.grounding.made import written
from vlmdata.grounding.write import read_text

BOXES = ((0.243, 0.469, 0.558, 0.746), (0.507, 0.409, 0.698, 0.74))


def test_the_question_and_answer_for_a_place_are_the_documented_ones() -> None:
    phrase = "<ref>the lady with the blue shirt</ref>"
    question = written("internvl", "refer", ["Find ", ("the lady with the blue shirt", []), "."])
    assert question == f"Please provide the bounding box coordinate of the region this sentence describes: {phrase}"
    answer = written("internvl", "refer", [("the lady with the blue shirt", [0])], BOXES)
    assert answer == f"{phrase}<box>[[243, 469, 558, 746]]</box>"


def test_a_list_of_objects_is_a_block_with_one_name_a_line() -> None:
    answer = written("internvl", "detect", [("helmet", [0]), ", ", ("guns", [0, 1])], BOXES)
    lines = "<ref>helmet</ref><box>[[243, 469, 558, 746]]</box>\n<ref>guns</ref>"
    assert answer == f"```\n{lines}<box>[[243, 469, 558, 746], [507, 409, 698, 740]]</box>\n```"
    found = read_text(answer, "internvl", 9, 9)
    assert found.text == "helmet\nguns" and [len(one.boxes) for one in found.found] == [1, 2]


def test_a_box_that_is_none_is_left_out() -> None:
    found = read_text("<ref>a</ref><box>[[1, 2, 3, 4], [5, 6, 1001, 8]]</box>", "internvl", 9, 9)
    assert found.found[0].boxes == ((0.001, 0.002, 0.003, 0.004),)
