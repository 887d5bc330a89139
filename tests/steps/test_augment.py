"""Views depend on the row's key and the image, keep texts true and boxes visible, and nothing is decoded for them."""

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.real_data import real_data
from tests.rows import captions, document, table
from vlmdata.grounding.frame import Frame
from vlmdata.grounding.spans import Grounding, Span
from vlmdata.images.augmentations import FLIPPING, MOVING, RECOLOURING, affine, read_operations, visible_share
from vlmdata.preflight.step_order import texts_too_late
from vlmdata.recipe import parse
from vlmdata.row import ROW, set_column
from vlmdata.step import RecipeError, Step
from vlmdata.steps.augment import NOT_EXAMINED, TEXT_REGIONS, TEXT_SEEN, Augment
from vlmdata.steps.ground import Ground
from vlmdata.steps.resize import Resize
from vlmdata.steps.visual_prompt import VisualPrompt
from vlmdata.text.scene_words import COORDINATES

STRONG: dict[str, Any] = {
    "crop_scale": [0.3, 1], "flip": 0.5, "vertical_flip": 0.5, "rotate": 45, "brightness": 0.4, "contrast": 0.4,
    "saturation": 0.4, "hue": 0.1, "grayscale": 0.1, "randaugment_ops": 2, "text_regions": "",
}  # fmt: skip
SIZE = {"width": 640, "height": 480}


def pairs(texts: list[str | None]) -> pa.Table:
    return captions(texts, width=[640] * len(texts), height=[480] * len(texts))


def names(rows: pa.Table, row: int = 0, position: int = 0) -> set[str]:
    """Return the names of all operations in the views of an image."""
    return {one.split()[0] for view in rows["augment"][row].as_py()[position] for one in view}


def column(rows: pa.Table, name: str) -> list[Any]:
    return [row[0] for row in rows[f"augment.{name}"].to_pylist()]


def test_views_depend_on_key_position_number_and_seed_only() -> None:
    step = Augment(views=4, **STRONG)
    rows = step.run(pairs(["a dog", "a dog", "a cat"]))
    views = [row[0] for row in rows["augment"].to_pylist()]
    assert [len(view) for view in views] == [4, 4, 4]
    assert len({json.dumps(view) for one in views for view in one}) == 12, "each view differs"
    again = Augment(views=6, **STRONG).run(pairs(["a dog", "a dog", "a cat"])[1:])
    assert [row[0][:4] for row in again["augment"].to_pylist()] == views[1:]
    assert Augment(views=4, seed=1, **STRONG).run(pairs(["a dog"]))["augment"].to_pylist()[0][0] != views[0]


def test_images_of_a_document_get_different_views_at_their_positions() -> None:
    rows = Augment(views=3, **STRONG).run(table([document(SIZE, "a dog", SIZE, {"width": None})]))
    first, text, second, unknown = rows["augment"][0].as_py()
    assert text is None and unknown is None and len(first) == len(second) == 3 and first != second


def test_frames_of_a_video_get_no_views() -> None:
    rows = Augment(views=3, **STRONG).run(table([document({**SIZE, "time_s": 0.5}, {**SIZE, "time_s": 1.0}, "a dog")]))
    assert rows["augment"][0].as_py() == [None, None, None]


def test_stored_numbers_are_short_and_valid() -> None:
    rows = Augment(views=50, **STRONG).run(pairs(["a dog"]))
    views = rows["augment"][0].as_py()[0]
    assert all(read_operations(view) for view in views)
    assert all(len(value) <= 7 for view in views for one in view for value in one.split()[1:])


@pytest.mark.parametrize(
    ("text", "gone", "kept"),
    [
        ("A dog", set(), {"hflip", "vflip", "hue", "resized_crop"}),
        ("A dog on the left", {"hflip", "vflip", "translate_x"}, {"hue", "resized_crop", "rotate"}),
        ("A dog above a cat", {"vflip"}, {"hflip", "hue", "resized_crop"}),
        ("A red dog", RECOLOURING, {"hflip", "vflip", "brightness", "resized_crop"}),
        ("The dog at [10, 20, 30, 40]", MOVING | FLIPPING, {"hue", "brightness"}),
    ],
)
def test_a_text_forbids_the_operations_that_make_it_wrong(text: str, gone: set[str], kept: set[str]) -> None:
    found = names(Augment(views=80, **STRONG).run(pairs([text])))
    assert not gone & found and kept <= found


def test_columns_say_why_an_operation_is_forbidden() -> None:
    rows = Augment(views=1, **STRONG).run(pairs(["a dog", "on the left", "a green car", "two cats", "at [1, 2, 3, 4]"]))
    assert column(rows, "no_flip") == [None, "left", None, None, COORDINATES]
    assert column(rows, "no_turn") == [None, "left", None, None, COORDINATES]
    assert column(rows, "no_colour") == [None, None, "green", None, None]
    assert column(rows, "no_crop") == [None, "left", None, "two", COORDINATES]


def test_alternatives_alt_texts_and_other_texts_of_the_row_count_too() -> None:
    image = {**SIZE, "alt": "a blue door"}
    talk = table([document(image, "What is there?", "A car on the right.")])
    said = table([document(SIZE, "a car")])
    said = set_column(
        said, "texts", pa.array([[None, {"text": "a car", "alternatives": ["a car to the west"]}]], ROW.field("texts").type)
    )
    step = Augment(views=1, **STRONG)
    assert step.run(talk)["augment.no_flip"][0][0].as_py() == "right"
    assert step.run(talk)["augment.no_colour"][0][0].as_py() == "blue"
    assert step.run(said)["augment.no_flip"][0][0].as_py() == "west"


def test_an_image_with_text_or_not_examined_is_never_mirrored() -> None:
    rows = set_column(pairs(["a dog"] * 3), TEXT_REGIONS, pa.array([[0, None], [3, None], [None, None]], pa.list_(pa.int32())))
    rows = Augment(views=40, **{**STRONG, "text_regions": TEXT_REGIONS}).run(rows)
    assert column(rows, "no_flip") == [None, TEXT_SEEN, NOT_EXAMINED]
    assert ["hflip" in names(rows, row) for row in range(3)] == [True, False, False]
    assert ["vflip" in names(rows, row) for row in range(3)] == [True, False, False]


def test_a_flip_without_text_in_image_before_it_is_one_clear_mistake() -> None:
    recipe = {"source": {"type": "files", "path": "photos"}, "steps": [{"augment": {"flip": 0.5}}]}
    with pytest.raises(RecipeError, match=r"augment reads the column 'text_in_image.boxes', .* Put text_in_image before it"):
        parse(recipe)
    for others in ({"flip": 0.5, "text_regions": ""}, {"flip": 0}):
        assert parse({**recipe, "steps": [{"augment": others}]}).steps


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"views": 0}, r"augment.views must lie in \[1, 1000\], such as 10, not 0"),
        ({"flip": 1.5}, r"augment.flip must lie in \[0, 1\], not 1.5"),
        ({"rotate": 200}, r"augment.rotate must lie in \[0, 180\], not 200"),
        ({"hue": 0.6}, r"augment.hue must lie in \[0, 0.5\]"),
        (
            {"crop_scale": [0.5]},
            r"augment.crop_scale must be the least and the greatest value, both in \[0.01, 1\], not \[0.5\]",
        ),
        ({"crop_scale": [0.9, 0.5]}, "augment.crop_scale must be the least"),
        ({"crop_ratio": [0, 1]}, "augment.crop_ratio must be the least"),
        ({"randaugment_magnitude": 31}, r"augment.randaugment_magnitude must lie in \[0, 30\], not 31"),
        ({"brightness": math.nan}, "augment.brightness must lie in"),
    ],
)
def test_a_wrong_parameter_is_one_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Augment(**wrong).check()


def grounded(boxes: list[list[float] | None], numbers: tuple[int, ...], image: int = 0) -> pa.Table:
    """Return a row of one image with boxes in pixels, and a text that refers to some of them."""
    text = "the dog [0.1, 0.1, 0.2, 0.2] sleeps"
    span = Span(0, 7, 28, text[:28], image, numbers)
    rows = table([document({**SIZE, "boxes": boxes}, "x")])
    item = {"text": text, "grounding": Grounding("mention", (span,)).dump()}
    return set_column(rows, "texts", pa.array([[None, item]], ROW.field("texts").type))


@given(st.integers(0, 500), st.integers(0, 430), st.integers(10, 140), st.integers(10, 50), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_a_box_of_a_text_stays_visible_in_every_view(x: int, y: int, wide: int, high: int, seed: int) -> None:
    box = [float(x), float(y), float(x + wide), float(y + high)]
    rows = Augment(views=10, seed=seed, min_visible=0.7, **STRONG).run(grounded([None, box], (1,)))
    fractions = (box[0] / 640, box[1] / 480, box[2] / 640, box[3] / 480)
    assert rows["augment.no_flip"][0][0].as_py() is None, "the numbers of a span are no coordinates"
    for view in rows["augment"][0].as_py()[0]:
        assert visible_share(read_operations(view), fractions, 640, 480) >= 0.7


def test_a_box_that_no_text_refers_to_may_leave_the_picture() -> None:
    corner = [0.0, 0.0, 30.0, 20.0]
    rows = Augment(views=60, **STRONG).run(grounded([corner, [300.0, 200.0, 340.0, 240.0]], (1,)))
    frames = [Frame(640, 480, affine(read_operations(view), 640, 480)) for view in rows["augment"][0].as_py()[0]]
    assert any(frame.box((0.0, 0.0, 30 / 640, 20 / 480)) is None for frame in frames)


def test_spans_with_wrong_numbers_of_images_or_boxes_do_no_harm() -> None:
    step = Augment(views=2, **STRONG)
    for rows in (grounded([], (3,)), grounded([None], (0,)), grounded([[1, 2, 3, 4]], (0,), image=9)):
        assert len(step.run(rows)["augment"][0][0]) == 2


def real_captions() -> pa.Table:
    folder = real_data("A_captioned/coco_free_licence")
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    rows = captions(["x"] * len(lines), width=[one["width"] for one in lines], height=[one["height"] for one in lines])
    texts = [[None, {"text": one["captions"][0], "alternatives": one["captions"][1:]}] for one in lines]
    return set_column(rows, "texts", pa.array(texts, ROW.field("texts").type))


def test_real_captions_forbid_flips_colours_and_crops_in_known_numbers() -> None:
    rows = Augment(views=1, **STRONG).run(real_captions())
    counts = {name: sum(map(bool, column(rows, name))) for name in ("no_flip", "no_turn", "no_colour", "no_crop")}
    assert len(rows) == 111 and counts == {"no_flip": 2, "no_turn": 58, "no_colour": 54, "no_crop": 49}


def test_a_picture_with_marks_gets_empty_views() -> None:
    extra = json.dumps({"visual_prompt": {"captions": [], "marks": [{"kind": "box"}], "refused": {}}})
    rows = pairs(["Which number marks the dog?", "a dog", "a dog", "a dog"])
    rows = set_column(rows, "extra", pa.array([extra, json.dumps({"marks": 3}), json.dumps({"a": {"marks": []}}), None]))
    rows = Augment(views=3, **STRONG).run(rows)
    assert [row[0] == [[], [], []] for row in rows["augment"].to_pylist()] == [True, False, False, False]
    assert column(rows, "no_colour") == column(rows, "no_crop") == ["marks", None, None, None]


@pytest.mark.parametrize("late", ["visual_prompt: {}", "ground: {}", "mine: {}"])
def test_a_step_behind_it_that_adds_texts_is_one_clear_mistake(late: str) -> None:
    name = late.partition(":")[0]
    steps: dict[str, Step] = {"visual_prompt": VisualPrompt(), "ground": Ground(), "mine": Captions(label="mine")}
    (mistake,) = texts_too_late([Augment(), Resize(), steps[name]])
    assert mistake.startswith(
        f"{name} adds texts that augment, a step before it, has not examined. Put augment behind all steps"
    )
    assert list(texts_too_late([steps[name], Augment(), Resize()])) == []


class Captions(Step):
    """A step of a user that adds captions."""

    adds_texts = True
