"""Boxes are fractions with three decimals directly behind words."""

from tests.grounding.made import written
from vlmdata.grounding.write import read_text


def test_boxes_of_a_phrase_share_their_brackets() -> None:
    text = written("shikra", "mention", ["A ", ("dog", [0]), ", ", ("two cats", [0, 1]), "."])
    assert text == "A dog[0.125,0.250,0.500,0.750], two cats[0.125,0.250,0.500,0.750;0.600,0.100,0.900,0.400]."
    assert read_text(text, "shikra", 9, 9).text == "A dog, two cats."


def test_the_answer_for_a_place_is_the_published_one() -> None:
    assert written("shikra", "refer", [("the dog", [0])]) == "Answer: [0.125,0.250,0.500,0.750] ."


def test_brackets_in_a_phrase_become_round() -> None:
    assert written("shikra", "detect", [("a [0.1] dog", [0])]) == "a ( 0.1) dog[0.125,0.250,0.500,0.750]"


def test_numbers_above_one_are_no_box() -> None:
    assert read_text("a dog[0.1,0.2,1.3,0.4]", "shikra", 9, 9).found == ()
