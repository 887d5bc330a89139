import json

import pytest

from vlmdata.grounding.spans import Grounding, Span, plain_boxes, read_grounding

TEXT = "Look, the dog [0.100, 0.200, 0.300, 0.400] sleeps."
SPAN = Span(6, 13, 42, TEXT[6:42], 0, (2,))


def test_a_grounding_is_read_back_from_its_json() -> None:
    grounding = Grounding("mention", (SPAN,))
    assert read_grounding(grounding.dump(), TEXT) == grounding
    assert read_grounding(grounding.as_json(), TEXT) == grounding


def test_a_span_whose_words_changed_is_left_out() -> None:
    changed = TEXT.replace("dog", "cat")
    assert read_grounding(Grounding("mention", (SPAN,)).dump(), changed) is None
    assert read_grounding(Grounding("detect", (SPAN,)).dump(), changed) == Grounding("detect", ())


def test_a_span_that_overlaps_the_one_before_is_left_out() -> None:
    other = Span(10, 13, 42, TEXT[10:42], 0, (1,))
    assert read_grounding(Grounding("mention", (SPAN, other)).dump(), TEXT) == Grounding("mention", (SPAN,))


@pytest.mark.parametrize(
    "value",
    [
        *("", "[", "[]", "null", "{}", '{"task": "x", "spans": []}', '{"task": "mention"}', "[" * 100_000),
        *(json.dumps({"task": "mention", "spans": [one]}) for one in (1, None, {}, {**vars(SPAN), "boxes": [True]})),
        json.dumps({"task": "mention", "spans": [{**vars(SPAN), "boxes": [0], "start": -1}]}),
        json.dumps({"task": "mention", "spans": [{**vars(SPAN), "boxes": [0], "phrase_end": 99}]}),
    ],
)
def test_other_values_are_no_grounding(value: object) -> None:
    assert read_grounding(value, TEXT) is None


def test_a_span_moves_with_its_text() -> None:
    before = "First. "
    moved = SPAN.moved(len(before))
    assert (before + TEXT)[moved.start : moved.end] == SPAN.words


def test_boxes_are_written_with_three_digits() -> None:
    assert plain_boxes([(0.1, 0.2, 0.3, 1 / 3), (0, 0, 1, 1)]) == "[0.100, 0.200, 0.300, 0.333] [0.000, 0.000, 1.000, 1.000]"
