"""The numbers of a grounded text follow the boxes of the stored images."""

import pytest

from vlmdata.grounding.current import Current, Kept, current, joined, without_numbers
from vlmdata.grounding.spans import Box, Grounding, Span, Task, plain_boxes, read_grounding

A: Box = (0.1, 0.2, 0.5, 0.6)
B: Box = (0.25, 0.25, 0.75, 1.0)
NEW: Box = (0.0, 0.0, 0.5, 0.5)


def grounded(*parts: str | tuple[str, tuple[int, ...], int], task: Task = "mention") -> tuple[str, Grounding]:
    """Return a text and its grounding. A part is plain text, or words, the numbers of boxes (A is 0, B is 1) and an image."""
    text, spans = "", []
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        phrase, boxes, image = part
        tail = plain_boxes([(A, B)[number] for number in boxes])
        words = f"{phrase} {tail}".strip()
        spans.append(Span(len(text), len(text) + len(phrase), len(text) + len(words), words, image, boxes))
        text += words
    return text, Grounding(task, tuple(spans))


SENTENCE = grounded(("the dog", (0,), 0), " and ", ("two cats", (0, 1), 0), " sleep")


def test_a_text_that_fits_stays_as_it_is() -> None:
    text, grounding = SENTENCE
    assert current(text, grounding, {0: Kept(0, [A, B])}) == Current(text, grounding)


def test_moved_boxes_get_their_new_numbers_and_spans_their_new_places() -> None:
    text, grounding, is_whole = current(*SENTENCE, {0: Kept(3, [NEW, B])})
    assert text == (
        "the dog [0.000, 0.000, 0.500, 0.500] and two cats [0.000, 0.000, 0.500, 0.500] [0.250, 0.250, 0.750, 1.000] sleep"
    )
    assert grounding is not None
    assert is_whole
    assert [(span.image, span.boxes, span.words) for span in grounding.spans] == [
        (3, (0,), "the dog [0.000, 0.000, 0.500, 0.500]"),
        (3, (0, 1), "two cats [0.000, 0.000, 0.500, 0.500] [0.250, 0.250, 0.750, 1.000]"),
    ]
    assert read_grounding(grounding.dump(), text) == grounding


@pytest.mark.parametrize(("places", "left"), [([None, B], (1,)), ([B], (0,))])
def test_a_box_that_is_gone_loses_its_numbers_and_the_others_stay(places: list[Box | None], left: tuple[int, ...]) -> None:
    text, grounding, _ = current(*SENTENCE, {0: Kept(0, places)})
    assert grounding is not None
    assert [span.boxes for span in grounding.spans] == [left] * len(grounding.spans)
    assert text.endswith("two cats [0.250, 0.250, 0.750, 1.000] sleep")


@pytest.mark.parametrize("kept", [{}, {0: Kept(0, [None, None])}, {0: Kept(0, [])}, {1: Kept(0, [A, B])}])
def test_the_words_of_a_rejected_image_stay_without_numbers(kept: dict[int, Kept]) -> None:
    assert current(*SENTENCE, kept) == Current("the dog and two cats sleep", None)
    assert without_numbers(*SENTENCE) == "the dog and two cats sleep"


def test_numbers_of_an_image_of_unknown_size_stay() -> None:
    assert current(*SENTENCE, {0: Kept(0, None)}) == Current(*SENTENCE)


@pytest.mark.parametrize("tail", ["", " at the left", " <box>1</box>", " [1, 2]"])
def test_a_text_without_plain_numbers_keeps_its_words(tail: str) -> None:
    text = f"a dog{tail} sleeps"
    grounding = Grounding("mention", (Span(0, 5, 5 + len(tail), f"a dog{tail}", 0, (0,)),))
    assert current(text, grounding, {0: Kept(0, [NEW])}) == Current(text, grounding)
    assert current(text, grounding, {0: Kept(0, [None])}) == Current(text, None)


def test_a_question_that_only_names_an_object_keeps_its_span() -> None:
    text, grounding = grounded("Where is ", ("the dog", (), 1), "?", task="refer")
    assert current(text, grounding, {1: Kept(0, [None])}) == (
        text,
        Grounding("refer", (Span(9, 16, 16, "the dog", 0, ()),)),
        True,
    )


def test_an_answer_that_was_only_a_box_is_not_whole_without_it() -> None:
    text, grounding = grounded(("", (0,), 0), task="refer")
    assert current(text, grounding, {0: Kept(0, [None, B])}) == Current("", Grounding("refer", ()), is_whole=False)
    text, grounding = grounded("What is in ", ("", (1,), 0), "?", task="describe")
    assert current(text, grounding, {}) == Current("What is in?", Grounding("describe", ()), is_whole=False)


def test_joined_texts_have_the_spans_of_each() -> None:
    more = grounded("Here ", ("a bird", (1,), 2))
    text, grounding = joined([("A title", None), SENTENCE, more])
    assert grounding is not None
    assert read_grounding(grounding.dump(), text) == grounding
    assert [span.image for span in grounding.spans] == [0, 0, 2]
    assert joined([("a", None), ("b", None)]) == ("a\n\nb", None)
    assert joined([grounded("a", task="refer")]) == ("a", Grounding("refer", ()))
    assert joined([grounded("a", task="refer"), ("b", None)]) == ("a\n\nb", None)
