"""The text is that of the model's report, with thousandths as its fine-tuning code rounds them."""

from tests.grounding.made import grounded, markup, shown, written
from vlmdata.grounding.write import read_text, write_text

DOG = "<|object_ref_start|>the dog<|object_ref_end|><|box_start|>(125,250),(500,750)<|box_end|>"


def test_a_phrase_has_its_tokens_and_its_box() -> None:
    assert written("qwen2_vl", "refer", [("the dog", [0])]) == DOG


def test_only_the_control_tokens_are_markup() -> None:
    pieces = write_text(*grounded("mention", [("<|box_start|> dog", [0])]), shown(), "qwen2_vl")
    assert pieces is not None
    assert markup(pieces) == ["<|object_ref_start|>", "<|object_ref_end|><|box_start|>", "<|box_end|>"]


def test_numbers_outside_of_the_picture_are_no_boxes() -> None:
    assert read_text("<|box_start|>(0,0),(1001,10)<|box_end|>", "qwen2_vl", 9, 9).found == ()
    assert read_text("<|box_start|>(9,0),(8,10)<|box_end|>", "qwen2_vl", 9, 9).found == ()


def test_the_names_of_a_question_have_the_tokens_of_names() -> None:
    question = written("qwen2_vl", "detect", ["Find ", ("dog", []), " and ", ("cat", []), "."])
    tags = "<|object_ref_start|>{}<|object_ref_end|>"
    assert question == f"Find {tags.format('dog')} and {tags.format('cat')}."
