"""Images are kept or dropped by their original format."""

import io

import pytest
from PIL import Image

from tests.parts import open_part
from tests.rows import document, table
from vlmdata.engine.work.ingest import Ingest
from vlmdata.steps.image_format import ImageFormat
from vlmdata.steps.resize import Resize


def image(kind: str) -> dict:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, kind)
    return {"data": out.getvalue()}


def test_the_original_format_counts_after_a_resize(tmp_path):
    kinds = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]
    rows = table([document("A text.", *map(image, kinds))])
    rows = Ingest(resize=Resize(mode="no")).run(rows, open_part(tmp_path))
    stored = [one and one["format"] for one in rows["images"].to_pylist()[0]]
    assert stored == [None, *["jpeg"] * 7]
    reasons = [one and one["reason"] for one in ImageFormat().run(rows)["images"].to_pylist()[0]]
    assert reasons == [None, None, None, None, "format_gif", "format_bmp", "format_tiff", "format_avif"]


@pytest.mark.parametrize(("field", "lost"), [("original_format", True), ("format", True), ("alt", False)])
def test_the_stored_format_counts_without_ingest_and_no_format_drops_nothing(field, lost):
    rows = ImageFormat(formats=["jpeg"]).run(table([document("A text.", {field: "png"})]))
    assert rows["reason"].to_pylist() == ["format_png" if lost else None]
