import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.grounding.made import BOXES, grounded, markup, shown, written
from vlmdata.errors import RecipeError
from vlmdata.grounding.frame import Frame, Shown
from vlmdata.grounding.spans import Box, Grounding, Task
from vlmdata.grounding.write import FORMS, check_form, form_named, plain_text, read_text, write_text

EVERY = pytest.mark.parametrize("form", FORMS)
EDGE = st.one_of(st.floats(0, 1), st.integers(0, 1024).map(lambda n: n / 1024), st.integers(0, 1000).map(lambda n: n / 1000))
HOSTILE = (
    'He said "stop" </ref></phrase>; <|box_start|>\n[1, 2, 3, 4] \\ {"bbox_2d": [1, 2, 3, 4]} <loc0001> x="1" '
    '<point x="1" y="1">'
)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x0, x1 = sorted((draw(EDGE), draw(EDGE)))
    y0, y1 = sorted((draw(EDGE), draw(EDGE)))
    if x1 - x0 < 1e-6:
        x0, x1 = max(x0 - 1e-3, 0), min(x1 + 1e-3, 1)
    if y1 - y0 < 1e-6:
        y0, y1 = max(y0 - 1e-3, 0), min(y1 + 1e-3, 1)
    return x0, y0, x1, y1


def centre(box: Box) -> Box:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return x, y, x, y


@EVERY
@given(box=boxes(), width=st.integers(28, 2000), height=st.integers(28, 2000))
@example(box=(0.0, 0.0, 1.0, 1.0), width=640, height=480)
@example(box=(0.0, 0.0, 1e-9, 1e-9), width=640, height=480)
@example(box=(1 - 1e-9, 1 - 1e-9, 1.0, 1.0), width=640, height=480)
@example(box=(0.57, 0.29, 0.58, 0.3), width=28, height=28)
def test_a_box_comes_back_within_one_bin_and_stays_there(form: str, box: Box, width: int, height: int) -> None:
    scale = form_named(form).scale
    numbers = scale.encode(box, width, height)
    again = scale.decode(numbers, width, height)
    assert again is not None
    truth = centre(box) if form == "molmo" else box
    bins = scale.bin_size(width, height) * 2
    assert all(abs(one - other) <= bin_size + 1e-9 for one, other, bin_size in zip(again, truth, bins, strict=True))
    assert scale.encode(again, width, height) == numbers


@EVERY
@given(one=boxes(), other=boxes())
def test_a_written_text_is_read_back_within_one_bin(form: str, one: Box, other: Box) -> None:
    text = written(form, "mention", ["A photo, ", ("the dog", [0]), ", and ", ("cats", [0, 1]), "."], [one, other])
    found = read_text(text, form, 640, 480)
    assert found.text == "A photo, the dog, and cats."
    assert [phrase.phrase for phrase in found.found] == ["the dog", "cats" if form not in ("shikra", "ferret") else "and cats"]
    bins = form_named(form).scale.bin_size(640, 480) * 2
    truth = sorted([one, other], key=centre) if form == "molmo" else [one, other]
    for box, own in zip((*found.found[0].boxes, *found.found[1].boxes), (one, *truth), strict=True):
        own = centre(own) if form == "molmo" else own
        same = [abs(a - b) <= size + 1e-9 for a, b, size in zip(box, own, bins, strict=True)]
        assert all(same) or (form == "molmo" and centre(one) != centre(other))  # rounding may change the order of points


@EVERY
@given(
    box=boxes(),
    turns=st.integers(0, 3),
    pad=st.floats(0, 1),
    crop=st.tuples(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.6, 1), st.floats(0.6, 1)),
)
def test_a_box_is_carried_through_pad_crop_and_rotation(
    form: str, box: Box, turns: int, pad: float, crop: tuple[float, float, float, float]
) -> None:
    high = 480 + round(480 * pad)
    frame = Frame(640, 480).then(640, high, (1, 0, 0, 0, 480 / high, (high - 480) / 2 / high))
    for _ in range(turns):  # a quarter turn clockwise
        frame = frame.then(frame.height, frame.width, (0, -1, 1, 1, 0, 0))
    x0, y0, x1, y1 = crop
    frame = frame.then(640, 480, (1 / (x1 - x0), 0, -x0 / (x1 - x0), 0, 1 / (y1 - y0), -y0 / (y1 - y0)))
    seen = frame.box(box)
    pieces = write_text(*grounded("refer", [("dog", [0])], [box]), {0: Shown([box], frame)}, form, min_visible=0.5)
    assert (pieces is not None) == (seen is not None and seen[1] >= 0.5)
    if pieces is not None and seen is not None:
        ((found,),) = [one.boxes for one in read_text(plain_text(pieces, form), form, 640, 480).found]
        truth = centre(seen[0]) if form == "molmo" else seen[0]
        bins = form_named(form).scale.bin_size(640, 480) * 2
        assert all(abs(one - other) <= size + 1e-9 for one, other, size in zip(found, truth, bins, strict=True))


@EVERY
def test_an_answer_to_detect_is_read_back(form: str) -> None:
    text = written(form, "detect", [("dog", [0]), ", ", ("cats", [0, 1])])
    found = read_text(text, form, 640, 480)
    assert [(one.phrase, len(one.boxes)) for one in found.found] == [("dog", 1), ("cats", 2)]


@EVERY
def test_a_hostile_phrase_does_not_break_the_form(form: str) -> None:
    text = written(form, "detect", [(HOSTILE, [0]), ", ", ("cats", [1])])
    found = read_text(text, form, 640, 480).found
    assert len(found) == 2 and [len(one.boxes) for one in found] == [1, 1] and found[1].phrase == "cats"


@EVERY
def test_words_of_the_data_are_no_markup(form: str) -> None:
    words = f"{HOSTILE} <phrase>x</phrase><object><patch_index_0001><patch_index_0009></object> "
    words += "<ref>x</ref><box>[[1, 2, 3, 4]]</box>"
    words += "<|object_ref_start|>x<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|> [0.1,0.2,0.3,0.4]"
    words += '<loc0001><loc0002><loc0003><loc0004> y <point x="1.0" y="2.0" alt="z">z</point>'
    text, grounding = grounded("mention", [f"{words} ", ("a dog", [0]), f" {words}"])
    pieces = write_text(text, grounding, shown(), form)
    assert pieces is not None and not any("0009" in one or "ref>x" in one for one in markup(pieces))
    found = read_text(plain_text(pieces, form), form, 640, 480).found
    assert [len(one.boxes) for one in found] == [1] and found[0].phrase.endswith("a dog")


@EVERY
def test_a_box_that_is_hardly_visible_leaves_its_words(form: str) -> None:
    left = {0: Shown(BOXES, Frame(640, 480).then(64, 480, (10, 0, 0, 0, 1, 0)))}  # the left tenth shows neither
    pieces = write_text(*grounded("mention", ["A ", ("dog", [0]), "."]), left, form)
    assert pieces is not None and plain_text(pieces, form) == "A dog."
    half = {0: Shown([(0.0, 0.0, 0.2, 1.0), BOXES[1]], Frame(640, 480).then(64, 480, (10, 0, 0, 0, 1, 0)))}
    text, grounding = grounded("detect", [("dog", [0]), ", ", ("cats", [1])], [(0.0, 0.0, 0.2, 1.0), BOXES[1]])
    answer = write_text(text, grounding, half, form)
    assert answer is not None and "cats" not in plain_text(answer, form) and "dog" in plain_text(answer, form)


@EVERY
def test_nothing_is_written_where_no_box_is_left(form: str) -> None:
    for task, words in (("detect", ("dog", [0])), ("refer", ("dog", [0])), ("describe", ("", [0]))):
        assert write_text(*grounded(task, [words]), shown([None, None]), form) is None  # type: ignore[arg-type]
        assert write_text(*grounded(task, [words]), {}, form) is None  # type: ignore[arg-type]


@EVERY
def test_text_without_grounding_stays(form: str) -> None:
    pieces = write_text("A [1, 2, 3, 4] dog.", None, {}, form)
    assert pieces is not None and [(one.text, one.is_markup) for one in pieces] == [("A [1, 2, 3, 4] dog.", False)]


@EVERY
@pytest.mark.parametrize("task", ["describe", "detect"])
def test_an_answer_without_boxes_has_none_whatever_its_words_are(form: str, task: Task) -> None:
    words = 'A [1, 2, 3, 4] [0.1,0.2,0.3,0.4] {"bbox_2d": [1, 2, 3, 4]} <point x="1.0" y="2.0">dog</point>'
    pieces = write_text(words, Grounding(task, ()), {}, form)
    assert pieces is not None and read_text(plain_text(pieces, form), form, 640, 480).found == ()


STARTS = (
    *("<phrase>", "<object>", "<phrase>a</phrase><object><patch_index_0001> ", "</delimiter_of_multi_objects/>", "<loc0001>"),
    *(
        "<|object_ref_start|>",
        "<|box_start|>(1,2),(3,4)<|box_end|>",
        "<|box_start|>(1,2),",
        "<ref>a</ref>",
        "<box>[[1, 2, 3, 4], ",
    ),
    *(
        '{"',
        '{"bbox_2d": [',
        '{"label": "',
        '{"a":{"a":',
        '"\\',
        "[0.1,0.2,0.3,0.4",
        "[1, 2, 3, 4] ",
        "[",
        "```json\n[",
        "]",
        " ; ",
    ),
    *('<point x="1"', '<points x1="1.0" y1="2.0"', ' x1="<point ', "<point ", "\n", " ", "9" * 30, "\ud800", '<point a="'),
)


@EVERY
@given(parts=st.lists(st.one_of(st.sampled_from(STARTS), st.text(max_size=5)), max_size=30))
def test_a_reader_never_raises(form: str, parts: list[str]) -> None:
    found = read_text("".join(parts), form, 640, 480)
    assert all(0 <= edge <= 1 for one in found.found for box in one.boxes for edge in box)


@EVERY
def test_reading_takes_time_in_proportion_to_the_text(form: str) -> None:
    for start in STARTS:
        before = time.process_time()
        read_text(start * (100_000 // len(start)), form, 640, 480)
        assert time.process_time() - before < 1.0, start  # of 100,000 characters; a quadratic reader takes minutes


def test_an_unknown_form_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"no form of grounded text named 'qwen3vl'. Did you mean 'qwen3_vl'"):
        check_form("qwen3vl")
