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
