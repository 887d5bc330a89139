"""Location tokens stand before names, y first."""

from tests.grounding.made import grounded, markup, shown, written
from vlmdata.grounding.write import read_text, write_text

DOG = "<loc0256><loc0128><loc0768><loc0512> dog"


def test_an_answer_has_a_name_for_each_box() -> None:
    cats = "<loc0256><loc0128><loc0768><loc0512> cats ; <loc0102><loc0614><loc0410><loc0922> cats"
    assert written("paligemma", "detect", [("dog", [0]), ", ", ("cats", [0, 1])]) == f"{DOG} ; {cats}"


def test_the_whole_picture_ends_at_the_last_bin() -> None:
    answer = written("paligemma", "refer", [("x", [0])], [(0.0, 0.0, 1.0, 1.0)])
    assert answer == "<loc0000><loc0000><loc1023><loc1023> x"


def test_questions_are_the_published_prompts() -> None:
    assert written("paligemma", "detect", ["Find ", ("dog", []), ", ", ("a; b", []), "."]) == "detect dog ; a, b"
    assert written("paligemma", "refer", ["Where is ", ("the dog", []), "?"]) == "detect the dog"
    assert written("paligemma", "describe", ["What is at ", ("", [0]), "?"]) == f"caption {DOG.removesuffix(' dog')}"


def test_a_text_comes_before_the_boxes_of_its_words() -> None:
    text = written("paligemma", "mention", ["A ", ("dog", [0]), " sleeps."])
    assert text == f"A dog sleeps. ; {DOG}" and read_text(text, "paligemma", 9, 9).text == "A dog sleeps."


def test_the_location_tokens_are_markup() -> None:
    pieces = write_text(*grounded("detect", [("<loc0001> dog", [0])]), shown(), "paligemma")
    assert pieces is not None and markup(pieces) == ["<loc0256><loc0128><loc0768><loc0512>"]
