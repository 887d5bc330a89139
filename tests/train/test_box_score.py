"""Boxes of generated answers are compared with the true ones, in every form."""

import pytest

from vlmdata.grounding.frame import Frame, Shown
from vlmdata.grounding.neutral import neutral_text
from vlmdata.grounding.spans import Box, Grounding, Span, plain_boxes
from vlmdata.grounding.write import FORMS, write_text
from vlmdata_train.loop.answers import GeneratedAnswer
from vlmdata_train.loop.box_score import iou, overlap
from vlmdata_train.loop.score import score, table
from vlmdata_train.model.box_form import BoxForm

TRUE, NEAR, FAR = (0.25, 0.25, 0.75, 0.75), (0.25, 0.25, 0.75, 0.625), (0.8, 0.8, 0.9, 0.9)


def answer(form: str | None, *boxes: Box) -> str:
    """Write an answer with boxes in a form."""
    text = plain_boxes(boxes)
    grounding = Grounding("refer", (Span(0, 0, len(text), text, 0, tuple(range(len(boxes)))),))
    shown = {0: Shown(boxes, Frame(320, 320))}
    if form is None:
        return str(neutral_text(text, grounding, shown, 0.2))
    pieces = write_text(text, grounding, shown, form)
    assert pieces is not None
    return "".join(piece.text for piece in pieces)


def test_iou_is_the_intersection_over_the_union() -> None:
    assert iou(TRUE, TRUE) == 1
    assert iou(TRUE, NEAR) == pytest.approx(0.75)
    assert iou(TRUE, FAR) == 0
    assert iou((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)) == 0


@pytest.mark.parametrize("name", [None, *sorted({*FORMS} - {"molmo"})])
def test_answers_of_a_form_are_compared_by_their_boxes(name: str | None) -> None:
    form = None if name is None else BoxForm(name)
    truth = answer(name, TRUE)
    assert overlap(truth, truth, form, 320, 320) == 1
    assert overlap(truth, answer(name, NEAR), form, 320, 320) == pytest.approx(0.75, abs=0.1)
    assert overlap(truth, answer(name, FAR), form, 320, 320) == 0
    assert overlap(truth, answer(name, TRUE, FAR), form, 320, 320) == 0
    assert overlap(truth, "on the left", form, 320, 320) == 0
    assert overlap("on the left", truth, form, 320, 320) is None
    assert overlap(answer(name, TRUE, FAR), answer(name, FAR, TRUE), form, 320, 320) == 1


def test_points_are_not_compared() -> None:
    assert overlap(answer("molmo", TRUE), answer("molmo", TRUE), BoxForm("molmo"), 320, 320) is None


def test_the_table_has_a_column_of_boxes_only_if_answers_have_boxes() -> None:
    answers = [GeneratedAnswer("a", str(n), "x", "y", overlap) for n, overlap in enumerate((0.5, 0.49, 1.0, None))]
    assert score(answers)["a"].boxes == pytest.approx(2 / 3)
    lines = table(score([*answers, GeneratedAnswer("b", "0", "x", "y")])).splitlines()
    assert [line.split()[-1] for line in lines] == ["boxes", "66.7%", "-"]
    assert "boxes" not in table(score([GeneratedAnswer("b", "0", "x", "y")]))
