"""Resize works as part of a run on inline images of a source."""

import io
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.engine.site import picture
from tests.images.pictures import exif, pillow_rgb, saved
from tests.parts import open_part
from vlmdata.engine.work.ingest import Ingest
from vlmdata.engine.work.open_partition import OpenPartition
from vlmdata.recipe import parse
from vlmdata.row import conform
from vlmdata.step import RecipeError
from vlmdata.steps.download import Download
from vlmdata.steps.faces import Faces
from vlmdata.steps.resize import Resize


def ingested(folder, *bodies: bytes, **resize) -> tuple[pa.Table, OpenPartition]:
    rows = conform(pa.table({"key": [str(i) for i in range(len(bodies))], "images": [[{"data": body}] for body in bodies]}))
    part = open_part(folder)
    return Ingest(resize=Resize(**resize)).run(rows, part), part


def test_inline_images_are_resized_and_stored_in_the_blob(tmp_path):
    rows, part = ingested(tmp_path, picture(1), picture(2, 30), mode="keep_ratio", size=40)
    images = [row[0] for row in rows["images"].to_pylist()]
    assert [(i["width"], i["height"], i["original_width"], i["original_height"]) for i in images] == [
        (53, 40, 85, 64),
        (53, 40, 40, 30),
    ]
    for image in images:
        with Image.open(io.BytesIO(part.image_bytes(image["blob"], image["offset"], image["size"]))) as stored:
            assert stored.size == (image["width"], image["height"])


def test_an_undecodable_or_too_large_image_is_dropped_with_the_reason(tmp_path):
    rows, _ = ingested(tmp_path, picture(1)[:300], b"<html>", picture(2), max_pixels=5000)
    assert rows["reason"].to_pylist() == ["truncated", "not_an_image", "too_many_pixels"]
    assert rows["drop"].to_pylist() == ["resize"] * 3


def test_equal_images_are_decoded_once_and_stored_once(tmp_path):
    rows, part = ingested(tmp_path, picture(1), picture(1), picture(2), mode="no", skip_reencode=True)
    places = [(row[0]["offset"], row[0]["size"]) for row in rows["images"].to_pylist()]
    assert places[0] == places[1] != places[2]
    assert part.blob.size == len(picture(1)) + len(picture(2))


def test_faces_are_blurred_where_the_row_has_boxes(tmp_path):
    body = picture(3)
    rows = conform(pa.table({"key": ["a"], "images": [[{"data": body, "boxes": [[0.0, 0.0, 40.0, 64.0]]}]]}))
    part = open_part(tmp_path)
    image = Ingest(resize=Resize(mode="no", blur_boxes=True)).run(rows, part)["images"].to_pylist()[0][0]
    with (
        Image.open(io.BytesIO(body)) as before,
        Image.open(io.BytesIO(part.image_bytes(image["blob"], 0, image["size"]))) as after,
    ):
        left, right = ((0, 0, 36, 64), (60, 0, 85, 64))
        change = [
            max(
                abs(a - b)
                for a, b in zip(before.crop(box).convert("L").tobytes(), after.crop(box).convert("L").tobytes(), strict=True)
            )
            for box in (left, right)
        ]
    assert change[0] > 40 > 12 > change[1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("engine", ["vlmdata", "img2dataset"])
def test_faces_are_blurred_inside_their_boxes_in_every_orientation(tmp_path, engine, orientation):
    """Boxes are in pixels of the upright image. img2dataset turns no image: its boxes are in pixels as encoded."""
    if engine == "img2dataset" and find_spec("img2dataset") is None:
        pytest.skip("img2dataset is not installed")
    noise = np.random.default_rng(0).integers(0, 256, (240, 360, 3)).astype(np.uint8)
    body = saved(noise, "png", exif=exif(orientation))
    rows = conform(pa.table({"key": ["a"], "images": [[{"data": body, "boxes": [[140.0, 90.0, 200.0, 150.0], None]}]]}))
    part = open_part(tmp_path)
    rule = Resize(mode="no", blur_boxes=True, format="png", quality=9)
    image = Ingest(download=Download(engine=engine), resize=rule).run(rows, part)["images"].to_pylist()[0][0]
    after = np.asarray(Image.open(io.BytesIO(part.image_bytes(image["blob"], 0, image["size"]))).convert("RGB")).astype(int)
    before = pillow_rgb(body) if engine == "vlmdata" else noise
    y, x = np.nonzero(np.abs(after - before).max(axis=2) > 40)
    assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == pytest.approx((140, 90, 200, 150), abs=40)  # the edges are soft
    assert image["boxes"] == [[140.0, 90.0, 200.0, 150.0], None]


def test_an_unknown_mode_is_refused():
    with pytest.raises(RecipeError, match="mode"):
        parse({"source": {"type": "url_list", "path": "a.parquet"}, "steps": [{"resize": {"mode": "keepratio"}}]})


def placed(folder, images: list[dict], *rules: dict, engine: str = "vlmdata") -> list[dict]:
    """Return the images after these resizes, one behind the other as in a recipe."""
    rows = conform(pa.table({"key": [str(i) for i in range(len(images))], "images": [[image] for image in images]}))
    part = open_part(folder)
    for number, rule in enumerate(rules):
        step = Ingest(download=Download(engine=engine), resize=Resize(**rule), is_later=number > 0)
        rows = step.run(rows, part)
    return [row[0] for row in rows["images"].to_pylist()]


BOX = [10.0, 16.0, 40.0, 64.0]  # of a picture of 85 x 64 pixels
CROP = {"mode": "center_crop", "size": 32}


def test_a_crop_keeps_the_whole_box_as_fractions_of_the_original_and_its_part_of_it(tmp_path):
    (image,) = placed(tmp_path, [{"data": picture(1), "boxes": [BOX, None, [0.0, 0.0, 5.0, 5.0]]}], CROP)
    assert image["original_boxes"] == [[10 / 85, 0.25, 40 / 85, 1.0], None, [0.0, 0.0, 5 / 85, 5 / 64]]
    assert image["view"] == pytest.approx([5 / 42, 0.0, 37 / 42, 1.0])  # 85 x 64 is scaled to 42 x 32
    assert image["boxes"][1:] == [None, None]


def test_a_later_resize_keeps_the_original_and_composes_the_view(tmp_path):
    rules = [{"mode": "keep_ratio", "size": 48}, CROP]
    (image,) = placed(tmp_path, [{"data": picture(1), "boxes": [BOX]}], *rules)
    assert image["original_boxes"] == [[10 / 85, 0.25, 40 / 85, 1.0]]
    x0, y0, x1, y1 = image["view"]
    expected = [(10 / 85 - x0) / (x1 - x0) * 32, 8.0, (40 / 85 - x0) / (x1 - x0) * 32, 32.0]
    assert (y0, y1) == (0.0, 1.0)
    assert image["boxes"][0] == pytest.approx([max(expected[0], 0.0), *expected[1:]], abs=1e-6)


def test_the_view_of_an_image_without_boxes_is_known_after_two_resizes(tmp_path):
    (image,) = placed(tmp_path, [{"data": picture(1)}], {"mode": "keep_ratio", "size": 48}, CROP)
    assert image["view"] == pytest.approx([0.12, 0.0, 0.88, 1.0], abs=0.02)


def test_nothing_is_invented_for_an_image_that_an_earlier_version_stored(tmp_path):
    stored = {"data": picture(1), "boxes": [BOX], "width": 85, "height": 64, "original_width": 170, "original_height": 128}
    hashed = {"data": picture(1), "boxes": [BOX], "phash": 1}
    for image in placed(tmp_path, [stored, hashed], CROP):
        assert (image["original_boxes"], image["view"]) == (None, None)
        assert image["boxes"][0] == pytest.approx([0, 8, 40 * 42 / 85 - 5, 32])


def test_equal_bytes_with_another_known_original_stay_two_images(tmp_path):
    known = {"data": picture(1), "boxes": [BOX], "original_boxes": [[0.5, 0.5, 1.0, 1.0]], "view": [0.5, 0.5, 1.0, 1.0]}
    first, second = placed(tmp_path, [{"data": picture(1), "boxes": [BOX]}, known], CROP)
    assert first["original_boxes"] == [[10 / 85, 0.25, 40 / 85, 1.0]]
    assert second["original_boxes"] == [[0.5, 0.5, 1.0, 1.0]]
    assert second["view"] == pytest.approx([0.5 + 5 / 84, 0.5, 0.5 + 37 / 84, 1.0])


@pytest.mark.parametrize("orientation", [1, 6])
def test_img2dataset_turns_no_image_so_fractions_are_of_the_picture_as_encoded(tmp_path, orientation):
    if find_spec("img2dataset") is None:
        pytest.skip("img2dataset is not installed")
    body = saved(np.zeros((40, 80, 3), np.uint8), "png", exif=exif(orientation))
    rule = {**CROP, "size": 20, "format": "png", "quality": 9}
    (image,) = placed(tmp_path, [{"data": body, "boxes": [[40.0, 0.0, 60.0, 20.0]]}], rule, engine="img2dataset")
    assert (image["original_boxes"], image["view"]) == ([[0.5, 0.0, 0.75, 0.5]], [0.25, 0.0, 0.75, 1.0])
    assert image["boxes"] == [[10.0, 0.0, 20.0, 10.0]]


def test_a_box_with_reversed_edges_reaches_faces_and_is_never_left_sharp(tmp_path):
    """Perhaps it is x, y, width and height: nobody knows where the face is."""
    images = [{"data": picture(1), "boxes": [[40.0, 30.0, 20.0, 20.0]]}, {"data": picture(2), "boxes": [BOX]}]
    rows = conform(pa.table({"key": ["a", "b"], "images": [[one] for one in images]}))
    part = open_part(tmp_path)
    resized = Ingest(resize=Resize(**CROP)).run(rows, part)
    assert resized["images"].to_pylist()[0][0]["boxes"] == [[40.0, 30.0, 20.0, 20.0]]
    found = Faces(boxes="images.boxes", blur=True).run(resized, part)
    assert found["reason"].to_pylist() == ["not_examined", None]
    blurred = Ingest(resize=Resize(**CROP, blur_boxes=True)).run(rows, part)
    assert blurred["reason"].to_pylist() == ["bad_box", None]
    assert blurred["drop"].to_pylist() == ["resize", None]


@pytest.mark.parametrize(
    "engine",
    [
        "vlmdata",
        pytest.param("img2dataset", marks=pytest.mark.skipif(not find_spec("img2dataset"), reason="needs img2dataset")),
    ],
)
def test_boxes_that_a_source_states_as_fractions_become_pixels_of_the_stored_image(tmp_path, engine):
    stated = [[0.0, 0.25, 0.5, 1.0], [0.9, 0.0, 1.0, 1.0], [-0.5, 0.0, 0.5, 2.0]]
    given = {"data": picture(1), "original_boxes": stated, "box_labels": ["a", "b", "c"]}
    for rule, view in (({"mode": "keep_ratio", "size": 48}, None), (CROP, [0.12, 0, 0.88, 1])):
        (image,) = placed(tmp_path, [dict(given)], rule, engine=engine)
        assert (image["original_boxes"], image["box_labels"]) == (stated, ["a", "b", "c"])
        assert image["view"] == (view and pytest.approx(view, abs=0.02))
        expected = [0, 8, 16, 32] if view else [0, 12, 32, 48]
        assert image["boxes"][0] == pytest.approx(expected, abs=0.5)
        assert (image["boxes"][1] is None) == bool(view)
        assert image["boxes"][2] == pytest.approx([0, 0, expected[2], image["height"]], abs=0.5)


def test_fractions_are_blurred_as_faces_and_a_broken_image_keeps_them(tmp_path):
    given = {"original_boxes": [[0.0, 0.0, 0.5, 1.0]]}
    blurred, plain, broken = (
        placed(tmp_path / name, [{"data": data, **given}], {"mode": "no", "skip_reencode": True, "blur_boxes": blur})[0]
        for name, data, blur in (("a", picture(3), True), ("b", picture(3), False), ("c", b"<html>", True))
    )
    assert blurred["phash"] is not None and blurred["size"] != plain["size"]
    assert (broken["reason"], broken["boxes"], broken["original_boxes"]) == ("not_an_image", None, given["original_boxes"])
