"""Marks are found in the stored pictures by their colour, and compared with the boxes, the questions and the answers."""

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.generation.labelled_source import photo_rows
from tests.images.pictures import photo, saved
from tests.parts import open_part
from tests.real_data import real_data
from tests.rows import document, table
from tests.steps.found_marks import changed, colour_in, found, largest, name_of_change, of_colour, overlap, tip_of
from vlmdata.engine.work.open_partition import OpenPartition
from vlmdata.errors import RecipeError
from vlmdata.images.decode import decode
from vlmdata.images.phash import phash
from vlmdata.steps.faces import Faces
from vlmdata.steps.resize import Resize
from vlmdata.steps.visual_prompt import VisualPrompt

BOXES = [[40.0, 50.0, 140.0, 200.0], [200.0, 60.0, 300.0, 150.0]]


def stored_rows(folder: Path, *pictures: tuple[bytes, dict[str, Any]], text: str | None = "A text.") -> Any:
    """Return caption pairs of these images and their fields, and the partition that holds them."""
    part = open_part(folder)
    rows = []
    for body, fields in pictures:
        image = {"blob": part.blob.name, "offset": part.blob.add(body), "size": len(body), **fields}
        rows.append({**document(image, *([] if text is None else [text])), "roles": None, "extra": None})
    return table(rows), part


def grey(width: int = 400, height: int = 300, level: int = 128) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def muted(width: int, height: int, seed: int) -> np.ndarray:
    """Return a picture like a photo without strong colours."""
    return photo(width, height, seed) // 4 + 96


def labelled(*boxes: list[float], labels: tuple[str, ...] = ("dog", "car")) -> dict[str, Any]:
    return {"boxes": list(boxes), "box_labels": list(labels[: len(boxes)])}


def only(kind: str, **parameters: Any) -> VisualPrompt:
    return VisualPrompt(kinds={kind: 1}, max_marks=1, questions={"name": 1}, **parameters)


def pixels_of(row: dict[str, Any], part: OpenPartition) -> np.ndarray:
    image = row["images"][0]
    return decode(part.image_bytes(image["blob"], image["offset"], image["size"])).pixels


def stored(rows: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row["images"][0][name] for name in ("blob", "offset", "size", "phash")) for row in rows.to_pylist()]


def said(row: dict[str, Any]) -> list[str]:
    return [text["text"] for text in row["texts"] if text and text["drop"] is None]


def about(row: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = json.loads(row["extra"] or "{}").get("visual_prompt", {})
    return own


def marked(rows: pa.Table, part: OpenPartition, step: VisualPrompt) -> list[dict[str, Any]]:
    return [row for row in step.run(rows, part).to_pylist() if about(row)]


def compare(row: dict[str, Any], before: np.ndarray, part: OpenPartition) -> None:
    """Assert that a row's only mark is at its box, that the question names its colour, and that the answer is its label."""
    (mark,), after = about(row)["marks"], pixels_of(row, part)
    question, answer = said(row)
    name = colour_in(question)
    assert name == name_of_change(before, after) == mark["colour"]
    box = row["images"][0]["boxes"][mark["box"]]
    mask = of_colour(after, name)
    if mark["kind"] == "point":  # as small as other things in a photo
        mask &= changed(before, after)
    edges, part_of_mask = largest(mask)
    if mark["kind"] in ("box", "ellipse", "triangle"):
        assert overlap(edges, tuple(box)) >= 0.8, (mark, edges, box)
    else:
        x, y = tip_of(part_of_mask) if mark["kind"] == "arrow" else ((edges[0] + edges[2]) / 2, (edges[1] + edges[3]) / 2)
        assert box[0] <= x <= box[2] and box[1] <= y <= box[3], (mark, x, y, box)
    assert answer == row["images"][0]["box_labels"][mark["box"]] and mark["kind"] in question.replace("circle", "ellipse")


@pytest.mark.parametrize("kind", ["box", "ellipse", "triangle", "point", "arrow"])
def test_a_mark_is_where_its_box_is_and_has_the_colour_of_the_question(kind, tmp_path):
    random = np.random.default_rng(3)
    pictures, originals = [], []
    for seed in range(12):
        width, height = (int(one) for one in random.integers(200, 500, 2))
        x0, y0 = random.uniform(-20, width * 0.6), random.uniform(-20, height * 0.6)
        box = [x0, y0, x0 + random.uniform(60, 160), y0 + random.uniform(60, 160)]
        box = [max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])]
        originals.append(muted(width, height, seed))
        pictures.append((saved(originals[-1], "JPEG", quality=95), labelled(box)))
    rows, part = stored_rows(tmp_path, *pictures)
    done = only(kind).run(rows, part).to_pylist()
    assert sum(bool(about(row)) for row in done) >= 11
    for row, original in zip(done, originals, strict=True):
        if about(row):
            assert about(row)["marks"][0]["kind"] == kind
            compare(row, original, part)


def test_marks_on_real_photos_are_where_their_boxes_are(tmp_path):
    folder = real_data("A_captioned/coco_free_licence")
    pictures = [(row["images"][0].pop("data"), row["images"][0]) for row in photo_rows(folder)]
    pictures = [(body, fields) for body, fields in pictures if fields["boxes"]]
    rows, part = stored_rows(tmp_path, *pictures)
    before = [decode(body).pixels for body, _ in pictures]
    kinds = Counter[str]()
    for at, original in enumerate(before):
        kind = ("box", "arrow", "ellipse", "point", "triangle")[at % 5]
        (row,) = only(kind).run(rows.slice(at, 1), part).to_pylist()
        if about(row):
            compare(row, original, part)
            kinds[kind] += 1
    assert len(before) == 51 and kinds.total() >= 45 and min(kinds.values()) >= 7


def test_numbers_mark_several_boxes_with_different_colours(tmp_path):
    rows, part = stored_rows(tmp_path, *[(saved(grey(), "PNG"), labelled(*BOXES))] * 12)
    step = VisualPrompt(max_marks=2, questions={"name": 1})
    several = [row for row in marked(rows, part, step) if len(about(row)["marks"]) == 2]
    assert len(several) >= 3
    for row in several:
        labels = [BOXES.index(row["images"][0]["boxes"][mark["box"]]) for mark in about(row)["marks"]]
        names = [("dog", "car")[n] for n in labels]
        assert said(row)[1] == f"1: {names[0]}, 2: {names[1]}" and "1 and 2" in said(row)[0]
        first, second = (mark["colour"] for mark in about(row)["marks"])
        assert first != second
        for colour, n in zip((first, second), labels, strict=True):
            assert overlap(found(pixels_of(row, part), colour), tuple(BOXES[n])) >= 0.8
    assert {tuple(BOXES.index(row["images"][0]["boxes"][m["box"]]) for m in about(row)["marks"]) for row in several} == {
        (0, 1),
        (1, 0),
    }


def test_the_row_becomes_a_conversation_and_its_image_keeps_its_facts(tmp_path):
    fields = {**labelled(BOXES[0]), "width": 400, "height": 300, "sha256": "ab" * 32, "phash": 5}
    rows, part = stored_rows(tmp_path, (saved(grey(), "PNG"), fields))
    (row,) = only("box").run(rows, part).to_pylist()
    image, before = row["images"][0], rows.to_pylist()[0]["images"][0]
    assert {name for name in image if image[name] != before[name]} == {"offset", "size", "phash", "format"}
    assert image["format"] == "png" and image["phash"] == phash(pixels_of(row, part))
    assert row["roles"] == ["user", "user", "user", "assistant"]
    assert [text and text["reason"] for text in row["texts"]] == [None, "caption_in_json", None, None]
    own = about(row)
    assert own["captions"] == ["A text."] and own["kinds"] == ["name"] and own["refused"] == {}
    (mark,) = own["marks"]
    assert (mark["box"], mark["label"], mark["place"]) == (0, "dog", [0.1, 0.1667, 0.35, 0.6667])
    assert 3 <= mark["thickness"] <= 6 and 0.8 <= mark["alpha"] <= 1


def test_a_row_without_a_caption_is_marked_too(tmp_path):
    rows, part = stored_rows(tmp_path, (saved(grey(), "PNG"), labelled(BOXES[0])), text=None)
    (row,) = only("arrow").run(rows, part).to_pylist()
    assert said(row)[1] == "dog" and about(row)["captions"] == [] and row["roles"] == ["user", "user", "assistant"]


def test_the_same_rows_give_the_same_bytes_and_another_seed_gives_others(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    pictures = [(saved(muted(300, 200, n), "JPEG", quality=90), labelled([30, 30, 150, 120])) for n in range(6)]
    bodies = []
    for folder, seed in (("a", 0), ("b", 0), ("a", 1)):
        rows, part = stored_rows(tmp_path / folder, *pictures)
        done = VisualPrompt(seed=seed).run(rows, part).to_pylist()
        bodies.append([part.image_bytes(*(row["images"][0][name] for name in ("blob", "offset", "size"))) for row in done])
    assert bodies[0] == bodies[1] and all(one != other for one, other in zip(bodies[0], bodies[2], strict=True))


def test_a_changed_question_is_asked_about_the_stored_marks(tmp_path):
    rows, part = stored_rows(tmp_path, *[(saved(grey(), "PNG"), labelled(*BOXES))] * 20)
    step = VisualPrompt(max_marks=1, questions={"name": 1})
    columns = step.measure(rows, part)
    measured = rows.set_column(rows.column_names.index("images"), "images", columns["images"])
    measured = measured.append_column("visual_prompt.marks", columns["marks"])
    named, asked = (one.decide(measured).to_pylist() for one in (step, replace(step, questions={"yes_no": 1})))
    assert [row["images"] for row in named] == [row["images"] for row in asked]
    answers = Counter(said(row)[1].partition(",")[0] for row in asked)
    assert answers.keys() == {"Yes.", "No"} and all(said(row)[0].startswith("Is the object") for row in asked)
    assert step.identity() == replace(step, questions={"yes_no": 1}).identity()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_mark_stands_out_from_grey_black_and_white(level, tmp_path):
    rows, part = stored_rows(tmp_path, *[(saved(grey(level=level), "JPEG"), labelled(BOXES[0]))] * 20)
    done = marked(rows, part, only("box"))
    assert len(done) == 20 and all(
        overlap(found(pixels_of(row, part), colour_in(said(row)[0])), tuple(BOXES[0])) > 0.8 for row in done
    )


def test_a_colour_that_the_picture_has_is_not_used(tmp_path):
    pixels = grey()
    pixels[250:280, 20:380] = (240, 0, 0)
    pixels[5:30, 20:380] = (0, 0, 255)
    rows, part = stored_rows(tmp_path, *[(saved(pixels, "PNG"), labelled(BOXES[0]))] * 40)
    used = Counter(colour_in(said(row)[0]) for row in marked(rows, part, only("ellipse")))
    assert sum(used.values()) == 40 and not {"red", "blue"} & used.keys() and len(used) >= 5


def test_a_picture_with_all_colours_gets_no_mark(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (300, 400, 3), dtype=np.uint8) * 255
    pixels = grey()
    for n, colour in enumerate([(240, 0, 0), (255, 140, 0), (255, 80, 170), (170, 0, 200), (0, 200, 0)]):
        noise[n * 10 : n * 10 + 10] = colour
    pixels[:] = noise
    rows, part = stored_rows(tmp_path, (saved(pixels, "PNG"), labelled(BOXES[0])))
    done = only("box", require=True).run(rows, part)
    assert done["reason"].to_pylist() == ["no_colour"] and done["images"] == rows["images"]


def test_a_mark_on_stripes_of_its_surroundings_gets_a_border(tmp_path):
    pixels = grey()
    # every line lies over colours near to half of the palette: only a border of black or white stands out everywhere
    pixels[:, ::4], pixels[:, 1::4] = (255, 190, 190), (190, 190, 255)
    pixels[:, 2::4], pixels[:, 3::4] = (190, 255, 190), (255, 255, 190)
    rows, part = stored_rows(tmp_path, (saved(pixels, "PNG"), labelled(BOXES[0])))
    (row,) = marked(rows, part, only("box"))
    assert overlap(found(pixels_of(row, part), colour_in(said(row)[0])), tuple(BOXES[0])) > 0.75


REFUSED = [
    ({"boxes": [[10.0, 10.0, 30.0, 90.0]], "box_labels": ["dog"]}, "min_side"),
    ({"boxes": [[0.0, 0.0, 390.0, 290.0]], "box_labels": ["dog"]}, "max_area"),
    ({"boxes": [BOXES[0]], "box_labels": [None]}, "no_label"),
    ({"boxes": [BOXES[0]], "box_labels": ["<image> dog"]}, "no_label"),
    ({"boxes": [BOXES[0]], "box_labels": ["dog " * 31]}, "no_label"),
    ({"boxes": [BOXES[0]], "box_labels": None}, "no_label"),
    ({"boxes": [BOXES[0]], "box_labels": ["dog", "cat"]}, "no_label"),
    ({"boxes": [None, [500.0, 0.0, 600.0, 90.0]], "box_labels": ["dog", "cat"]}, "no_area"),
    ({"boxes": [[float("nan"), 0.0, 60.0, 90.0], [60.0, 60.0, 20.0, 20.0]], "box_labels": ["dog", "cat"]}, "no_area"),
    ({"boxes": [BOXES[0], [45.0, 50.0, 150.0, 200.0]], "box_labels": ["dog", "cat"]}, "same_place"),
    ({"boxes": [[0.0, 0.0, 90.0, 90.0]], "box_labels": ["dog"], "original_boxes": [[-0.4, 0.0, 0.225, 0.6]]}, "min_visible"),
    ({"boxes": [BOXES[0]], "box_labels": ["dog"], "width": 800, "height": 600}, "other_size"),
    ({"boxes": [BOXES[0]] * 501, "box_labels": ["dog"] * 501}, "too_many_boxes"),
    ({"boxes": [], "box_labels": None}, "no_boxes"),
    ({}, "no_boxes"),
]


@pytest.mark.parametrize(("fields", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_a_row_without_a_clear_box_stays_or_is_dropped_with_the_reason(fields, reason, tmp_path):
    rows, part = stored_rows(tmp_path, (saved(grey(), "PNG"), fields))
    stays = VisualPrompt().run(rows, part)
    assert stored(stays) == stored(rows) and stays["roles"].to_pylist() == [None] and stays["drop"].to_pylist() == [None]
    done = VisualPrompt(require=True).run(rows, part).to_pylist()[0]
    assert (done["drop"], done["reason"]) == ("visual_prompt", reason)


def test_a_person_behind_a_ball_is_framed_and_never_pointed_at(tmp_path):
    boxes = {"boxes": [[50.0, 50.0, 250.0, 250.0], [120.0, 120.0, 180.0, 180.0]], "box_labels": ["person", "sports ball"]}
    rows, part = stored_rows(tmp_path, *[(saved(grey(), "PNG"), boxes)] * 40)
    step = VisualPrompt(max_marks=1, questions={"name": 1})
    kinds = Counter((about(row)["marks"][0]["kind"], said(row)[1]) for row in marked(rows, part, step))
    assert {kind for kind, label in kinds if label == "person"} == {"box", "ellipse", "triangle"}
    assert {kind for kind, label in kinds if label == "sports ball"} == {"box", "ellipse", "triangle", "point", "arrow"}
    only_points = VisualPrompt(kinds={"point": 1}, max_marks=1, require=True).run(rows, part).to_pylist()
    assert {said(row)[1] for row in only_points if about(row)} <= {"sports ball", "Yes.", "No, it is a sports ball."}


def test_an_arrow_begins_within_the_picture_and_avoids_other_things(tmp_path):
    boxes = {"boxes": [[0.0, 0.0, 60.0, 60.0], [0.0, 100.0, 400.0, 300.0]], "box_labels": ["dog", "car"]}
    rows, part = stored_rows(tmp_path, *[(saved(grey(), "PNG"), boxes)] * 20)
    marks = [about(row)["marks"][0] for row in marked(rows, part, only("arrow"))]
    for mark in marks:
        (x, y), (tip_x, tip_y) = mark["tail"], mark["tip"]
        assert 0 < x < 1 and 0 < y < 1 and ((x - tip_x) * 400) ** 2 + ((y - tip_y) * 300) ** 2 > 25**2
        if mark["label"] == "dog":
            assert y * 300 < 100  # an arrow from below would cross the car
    assert {mark["label"] for mark in marks} == {"dog", "car"}


def test_odd_images_are_marked_or_left_as_they_are(tmp_path):
    picture = Image.fromarray(muted(300, 200, 1))
    frames, rotated = io.BytesIO(), io.BytesIO()
    picture.save(frames, "GIF", save_all=True, append_images=[picture.transpose(Image.Transpose.ROTATE_180)])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(rotated, "JPEG", exif=exif, quality=95)
    bodies = {
        "gif": frames.getvalue(),
        "rotated": rotated.getvalue(),
        "grey": saved(picture.convert("L"), "JPEG"),
        "cmyk": saved(picture.convert("CMYK"), "JPEG", quality=95),
        "webp": saved(picture, "WEBP", quality=95),
        "bits": saved(picture.convert("1"), "PNG"),
    }
    box = [30.0, 40.0, 150.0, 160.0]
    rows, part = stored_rows(tmp_path, *[(body, labelled(box)) for body in bodies.values()])
    for name, row in zip(bodies, only("box").run(rows, part).to_pylist(), strict=True):
        image = row["images"][0]
        kind = {"webp": "webp", "bits": "png"}.get(name, "jpeg")
        assert (image["format"], image["width"], image["height"]) == (kind, 300, 200), name
        assert overlap(found(pixels_of(row, part), colour_in(said(row)[0])), tuple(box)) > 0.8, name
    broken = [b"no image", bodies["webp"][:500], saved(grey(1, 1), "PNG"), saved(Image.new("1", (20_000, 20_000)), "PNG")]
    rows, part = stored_rows(tmp_path, *[(body, labelled([0.0, 0.0, 150.0, 160.0])) for body in broken])
    done = VisualPrompt(require=True).run(rows, part)
    assert done["reason"].to_pylist() == ["bad_image", "bad_image", "min_side", "bad_image"]
    assert done["images"] == rows["images"]


def test_conversations_and_documents_stay_as_they_are(tmp_path):
    rows, part = stored_rows(tmp_path, *[(saved(grey(), "PNG"), labelled(BOXES[0]))] * 2)
    talk, page = rows.to_pylist()
    talk["roles"] = ["user", "assistant"]
    page["images"], page["texts"] = [page["images"][0]] * 2 + [None], [None, None, page["texts"][1]]
    rows = table([talk, page])
    done = VisualPrompt(require=True).run(rows, part)
    assert done.drop_columns(["visual_prompt.marks"]) == rows


def test_faces_behind_the_marks_keep_the_question(tmp_path):
    rows, part = stored_rows(tmp_path, (saved(grey(), "PNG"), labelled(BOXES[0])))
    done = only("box").run(rows, part)
    faces = pa.array([[[[0.6, 0.6, 0.8, 0.8]], None, None, None]])
    (row,) = Faces(boxes="own.boxes", blur=True).run(done.append_column("own.boxes", faces), part).to_pylist()
    assert overlap(found(pixels_of(row, part), colour_in(said(row)[0])), tuple(BOXES[0])) > 0.8 and said(row)[1] == "dog"


def test_a_resize_or_a_second_marking_behind_the_step_is_a_mistake():
    with pytest.raises(RecipeError, match=r"^resize would make the marks that visual_prompt has drawn thinner.* before"):
        Resize().check_steps([VisualPrompt()])
    with pytest.raises(RecipeError, match=r"^again: visual_prompt before it has already marked the pictures"):
        VisualPrompt(label="again").check_steps([Resize(), VisualPrompt()])
    VisualPrompt().check_steps([Resize()])


def test_a_source_without_pairs_or_labels_is_a_mistake():
    with pytest.raises(RecipeError, match=r"^visual_prompt marks rows with one image .* first 1 rows is one"):
        VisualPrompt().check_rows(table([document({"url": "a"}, {"url": "b"}, "c")]))
    with pytest.raises(RecipeError, match=r"^visual_prompt needs boxes with labels, and none of the source's first 1 rows has"):
        VisualPrompt().check_rows(table([document({"url": "a", "boxes": BOXES}, "c")]))
    VisualPrompt().check_rows(table([document({"url": "a", **labelled(BOXES[0])}, "c")]))


WRONG = [
    ({"kinds": {"scribble": 1}}, "visual_prompt.kinds: there is no 'scribble'. There are box, ellipse, triangle, point, arrow"),
    ({"kinds": {"box": 0}}, "visual_prompt.kinds needs weights of 0 or more, and one above 0, such as {box: 1}"),
    ({"questions": {"name": -1}}, "visual_prompt.questions needs weights of 0 or more"),
    ({"max_marks": 10}, "visual_prompt.max_marks must lie in [1, 9], not 10"),
    ({"min_area": 2}, "visual_prompt.min_area must lie in [0, 1], not 2"),
    ({"min_area": 0.9}, "visual_prompt.min_area is 0.9, more than max_area, 0.8"),
    ({"thickness": (0.02, 0.01)}, "visual_prompt.thickness must be [least, most] in [0.001, 0.05], not [0.02, 0.01]"),
    ({"alpha": (0.1, 1)}, "visual_prompt.alpha must be [least, most] in [0.3, 1.0], not [0.1, 1]"),
    ({"quality": 0}, "visual_prompt.quality must lie in [1, 100], not 0"),
]


@pytest.mark.parametrize(("parameters", "says"), WRONG)
def test_wrong_parameters_are_named(parameters, says):
    with pytest.raises(RecipeError) as raised:
        VisualPrompt(**parameters).check()
    assert str(raised.value).startswith(says)
