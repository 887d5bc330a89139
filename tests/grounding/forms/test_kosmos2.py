"""Compares the form with the model's own code in transformers."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grounding.made import written
from vlmdata.grounding.spans import Box
from vlmdata.grounding.write import read_text

own = pytest.importorskip("transformers.models.kosmos2.processing_kosmos2", reason="needs transformers")
SIDE = st.floats(0, 1).map(lambda edge: round(edge, 4))


class Writer(own.Kosmos2Processor):
    """The model's own writing of boxes, which needs neither a tokenizer nor an image processor."""

    def __init__(self) -> None:
        self.num_patch_index_tokens = 1024
        self.boi_token, self.eoi_token = "<image>", "</image>"


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    (x0, x1), (y0, y1) = (sorted((draw(SIDE), draw(SIDE))) for _ in range(2))
    return x0, y0, max(x1, x0 + 1e-4), max(y1, y0 + 1e-4)


def without_spaces(text: str) -> str:
    """Return a text without spaces between tags, which the model's tokenizer ignores."""
    return re.sub(r"(?<=>) (?=<)", "", text)


@given(one=boxes(), other=boxes())
def test_the_text_is_what_the_model_s_own_processor_writes(one: Box, other: Box) -> None:
    one, other = ((*box[:2], min(box[2], 1.0), min(box[3], 1.0)) for box in (one, other))
    if not all(box[2] > box[0] and box[3] > box[1] for box in (one, other)):
        return
    ours = written("kosmos2", "mention", ["An image of ", ("a dog", [0]), " near ", ("cats", [0, 1]), "."], [one, other])
    tags = "<grounding> An image of<phrase> a dog</phrase> near<phrase> cats</phrase>."
    assert ours == without_spaces(Writer().preprocess_examples(tags, bboxes=[one, [one, other]]))


@given(one=boxes(), other=boxes())
def test_the_reader_finds_what_the_model_s_own_decoder_finds(one: Box, other: Box) -> None:
    text = written("kosmos2", "mention", ["An image of ", ("a dog", [0]), " near ", ("cats", [0, 1]), "."], [one, other])
    words, entities = Writer().post_process_generation(text)
    found = read_text(text, "kosmos2", 224, 224)
    assert found.text == words
    assert [(each.phrase, list(each.boxes)) for each in found.found] == [(phrase, boxes) for phrase, _, boxes in entities]


def test_the_documented_example_is_read_as_documented() -> None:
    text = (
        "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming "
        "himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>."
    )
    found = read_text(text, "kosmos2", 224, 224)
    assert found.text == "An image of a snowman warming himself by a fire."
    assert [one.phrase for one in found.found] == ["a snowman", "a fire"]
    assert found.found[0].boxes == ((0.390625, 0.046875, 0.984375, 0.828125),)
    assert found.found[1].boxes == ((0.171875, 0.015625, 0.484375, 0.890625),)


def test_questions_are_those_of_the_documentation() -> None:
    assert written("kosmos2", "refer", ["Where is ", ("the dog", []), "?"]) == "<grounding><phrase> the dog</phrase>"
    assert written("kosmos2", "refer", [("the dog", [0])]) == "<object><patch_index_0260><patch_index_0751></object>"
    question = written("kosmos2", "describe", ["What is at ", ("", [0]), "?"])
    assert question == "<grounding><phrase> It</phrase><object><patch_index_0260><patch_index_0751></object> is"


def test_cells_outside_of_the_grid_and_crossed_corners_are_no_boxes() -> None:
    assert read_text("a<object><patch_index_1024><patch_index_1024></object>", "kosmos2", 9, 9).found == ()
    assert read_text("a<object><patch_index_0863><patch_index_0044></object>", "kosmos2", 9, 9).found == ()
