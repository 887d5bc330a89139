"""The neutral form of grounded texts follows the picture that a model gets."""

from vlmdata.grounding.frame import Frame, Shown
from vlmdata.grounding.neutral import neutral_text, read_neutral
from vlmdata.grounding.spans import Grounding, Span, Task, plain_boxes

LEFT, MIDDLE, RIGHT = (0.0, 0.0, 0.2, 1.0), (0.4, 0.25, 0.6, 0.75), (0.8, 0.0, 1.0, 0.5)
CROPPED = {0: Shown([LEFT, MIDDLE, RIGHT], Frame.placed(50, 50, (100, 50), left=-25))}  # shows 0.25 to 0.75 of the width
WHOLE = {0: Shown([LEFT, MIDDLE, RIGHT], Frame(100, 50))}


def made(task: Task, *parts: tuple[str, str, list[int]], end: str = "") -> tuple[str, Grounding]:
    """Return a stored text and its grounding. A part has the text before, a phrase and the numbers of boxes."""
    text, spans = "", []
    for before, phrase, numbers in parts:
        text += before
        boxes = plain_boxes([(LEFT, MIDDLE, RIGHT)[number] for number in numbers])
        words = f"{phrase} {boxes}".strip()
        spans.append(Span(len(text), len(text) + len(phrase), len(text) + len(words), words, 0, tuple(numbers)))
        text += words
    return text + end, Grounding(task, tuple(spans))


def test_a_text_is_unchanged_where_the_picture_is_the_image() -> None:
    text, grounding = made("mention", ("See ", "a dog", [0, 2]), (" and ", "a cat", [1]), end="!")
    assert neutral_text(text, grounding, WHOLE, 0.2) == text
    assert neutral_text("no boxes", None, WHOLE, 0.2) == "no boxes"


def test_boxes_follow_a_crop_and_unseen_ones_leave_their_words() -> None:
    text, grounding = made("mention", ("See ", "a dog", [0, 2]), (" and ", "a cat", [1, 0]), end="!")
    assert neutral_text(text, grounding, CROPPED, 0.2) == "See a dog and a cat [0.300, 0.250, 0.700, 0.750]!"


def test_an_answer_lists_what_is_seen_and_is_lost_without_it() -> None:
    text, grounding = made("detect", ("", "a dog", [0]), (", ", "a cat", [1]), (", ", "a cow", [2]))
    assert neutral_text(text, grounding, CROPPED, 0.2) == "a cat [0.300, 0.250, 0.700, 0.750]"
    for task in ("detect", "refer"):
        text, grounding = made(task, ("", "", [0]))
        assert neutral_text(text, grounding, CROPPED, 0.2) is None


def test_a_question_about_boxes_needs_all_of_them() -> None:
    text, grounding = made("describe", ("What is ", "", [0, 1]), end="?")
    assert neutral_text(text, grounding, WHOLE, 0.2) == text
    assert neutral_text(text, grounding, CROPPED, 0.2) is None


def test_a_question_that_names_an_object_stays() -> None:
    text, grounding = made("refer", ("Where is ", "the dog", []), end="?")
    assert neutral_text(text, grounding, {}, 0.2) == "Where is the dog?"


def test_boxes_are_read_back_and_other_brackets_are_not() -> None:
    text, _ = made("mention", ("", "a dog", [0, 1]), end=" [0.5] [1, 2, 3, 4] [0.9, 0, 0.1, 1]")
    assert read_neutral(text) == [LEFT, MIDDLE]
