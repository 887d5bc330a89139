"""Boxes are whole thousandths, rounded down, behind words."""

from tests.grounding.made import written
from vlmdata.grounding.write import read_text


def test_boxes_stand_behind_words_and_are_rounded_down() -> None:
    text = written("ferret", "mention", ["A ", ("dog", [0]), "."], [(0.1239, 0.57, 0.5, 0.99999)])
    assert text == "A dog [123, 570, 500, 999]."


def test_the_question_for_a_place_is_that_of_the_model_s_evaluation() -> None:
    question = written("ferret", "refer", ["Find ", ("the dog", []), "."])
    assert question == "What is the location of the dog in the image?"


def test_boxes_that_follow_each_other_belong_to_one_phrase() -> None:
    found = read_text("two cats [1, 2, 3, 4] [5, 6, 7, 8], a dog [9, 9, 10, 10]", "ferret", 9, 9)
    assert [(one.phrase, len(one.boxes)) for one in found.found] == [("two cats", 2), ("a dog", 1)]
    assert found.text == "two cats, a dog"
