"""Pages of PDFs become pictures with the words and boxes that a small writer put there."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.loader.tars import write_tar
from tests.pdf.write_pdf import PdfPage, Placed, pdf
from tests.sources.reading import read_all
from vlmdata.sources.pdf import Pdf
from vlmdata.step import RecipeError

SCALE = 150 / 72  # pixels per point


def two_columns() -> PdfPage:
    page = PdfPage()
    page.text(50, 60, "A title across both of the columns of this page", 18)
    left, right = "left column words that fill " * 12, "right column words that fill " * 12
    page.paragraph(50, 100, left.strip(), 230)
    page.paragraph(320, 100, right.strip(), 230)
    return page


def rows_of(tmp_path, data: bytes, **settings) -> list[dict]:
    (tmp_path / "a.pdf").write_bytes(data)
    return read_all(Pdf(path=str(tmp_path / "a.pdf"), **settings)).to_pylist()


def overlap(one, other) -> float:
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def test_a_page_has_its_words_in_reading_order_with_their_boxes(tmp_path):
    page = two_columns()
    (row,) = rows_of(tmp_path, pdf(page))
    image = row["images"][0]
    assert (image["width"], image["height"], image["format"]) == (1250, 1667, "png")
    assert image["box_labels"] == [word.text for word in page.words]
    assert row["texts"][1]["text"].split() == image["box_labels"]
    for word, box in zip(page.words, image["boxes"], strict=True):
        x0, y0, x1, y1 = (side * SCALE for side in word.box)
        assert abs(box[0] - x0) <= 2 and abs(box[2] - x1) <= 2, word
        assert box[1] <= y0 + 2 and box[3] >= y1 - 2 and box[3] - box[1] < 2 * (y1 - y0), word


def test_the_boxes_hold_the_ink_of_their_words(tmp_path):
    (row,) = rows_of(tmp_path, pdf(two_columns()))
    image = row["images"][0]
    ink = np.asarray(Image.open(io.BytesIO(image["data"])).convert("L")) < 128
    inside = np.zeros_like(ink)
    for x0, y0, x1, y1 in image["boxes"]:
        inside[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = True
    assert ink.sum() > 5000 and (ink & ~inside).sum() == 0


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_rotated_page_is_upright_as_a_viewer_shows_it(tmp_path, turn):
    page = PdfPage(head=f"/Rotate {turn}")
    page.text(100, 200, "word")
    (row,) = rows_of(tmp_path, pdf(page))
    image = row["images"][0]
    w, h = page.width * SCALE, page.height * SCALE
    x0, y0, x1, y1 = (side * SCALE for side in page.words[0].box)
    where = {90: (h - y1, x0, h - y0, x1), 180: (w - x1, h - y1, w - x0, h - y0), 270: (y0, w - x1, y1, w - x0)}[turn]
    (box,) = image["boxes"]
    assert (image["width"] > image["height"]) == (turn != 180)
    assert overlap(box, where) > 0.95 * (where[2] - where[0]) * (where[3] - where[1])


def test_the_page_is_cut_at_its_crop_box_and_words_outside_are_left_out(tmp_path):
    page = PdfPage(head="/CropBox[100 400 500 700]")  # from the left, from the bottom
    page.text(150, 200, "inside")
    page.text(10, 200, "left")
    page.text(150, 700, "below")
    (row,) = rows_of(tmp_path, pdf(page))
    image = row["images"][0]
    assert (image["width"], image["height"]) == (834, 625) and image["box_labels"] == ["inside"]
    assert abs(image["boxes"][0][0] - 50 * SCALE) <= 2 and abs(image["boxes"][0][3] - 100 * SCALE) < 6


def test_a_media_box_may_begin_anywhere(tmp_path):
    page = PdfPage(head="/MediaBox[-300 -400 300 400]")
    page.content.append(b"BT /F 10 Tf -200 200 Td (word) Tj ET")
    (row,) = rows_of(tmp_path, pdf(page))
    assert abs(row["images"][0]["boxes"][0][0] - 100 * SCALE) <= 2
    assert abs(row["images"][0]["boxes"][0][3] - 200 * SCALE) < 6


def test_huge_pages_are_limited_by_their_longest_side(tmp_path):
    page = PdfPage(14400, 7200, "/UserUnit 10")
    page.text(7200, 3600, "middle", 400)
    (row,) = rows_of(tmp_path, pdf(page), max_side=1000)
    image = row["images"][0]
    assert (image["width"], image["height"]) == (1000, 500)
    assert abs(image["boxes"][0][0] - 500) <= 2


def test_boxes_may_be_those_of_lines_or_none(tmp_path):
    page = PdfPage()
    page.text(50, 100, "one line of words")
    page.text(50, 112, "and another")
    (row,) = rows_of(tmp_path, pdf(page), boxes="lines")
    assert row["images"][0]["box_labels"] == ["one line of words", "and another"]
    (row,) = rows_of(tmp_path, pdf(page), boxes="none")
    assert row["images"][0]["boxes"] is None and row["texts"][1]["text"] == "one line of words\nand another"


def test_invisible_text_over_a_scan_is_read_and_scans_without_text_are_kept_or_dropped(tmp_path):
    scan, ocr = PdfPage(), PdfPage()
    for page in (scan, ocr):
        page.picture((0, 0, 600, 800), bytes(range(192)) * 16, (32, 32))
    ocr.text(100, 100, "read by a machine", mode=3)
    rows = rows_of(tmp_path, pdf(scan, ocr))
    assert [row["texts"][1]["text"] for row in rows] == ["", "read by a machine"]
    rows = rows_of(tmp_path, pdf(scan, ocr), without_text="drop")
    assert [row["reason"] for row in rows] == ["no_text", None]
    assert rows[0]["place"] == "a.pdf, page 1"


def test_the_pages_of_a_pdf_are_one_row_if_joined(tmp_path):
    first, second = PdfPage(), PdfPage()
    first.text(50, 100, "first")
    source = Pdf(path=str(tmp_path), joined=True)
    (tmp_path / "a.pdf").write_bytes(pdf(first, second))
    (row,) = read_all(source).to_pylist()
    assert source.gives == "documents" and row["place"] == "a.pdf" and json.loads(row["extra"])["pages"] == 2
    assert [image is not None for image in row["images"]] == [True, False, True]
    assert row["texts"][1]["text"] == "first"


def test_zips_and_folders_are_read_and_keys_depend_on_the_content_alone(tmp_path):
    data = pdf(two_columns())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.PDF").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("deep/c.pdf", data)
        archive.writestr("other.txt", b"text")
    source = Pdf(path=str(tmp_path))
    rows = [row for piece in source.pieces() for table in source.read(piece) for row in table.to_pylist()]
    assert [row["place"] for row in rows] == ["in/b.PDF, page 1", "z.zip/deep/c.pdf, page 1"]
    assert rows[0]["id"] == rows[1]["id"]
    assert json.loads(rows[0]["extra"]) == {"file": "in/b.PDF", "page": 1, "pages": 1}


def test_wrong_settings_are_reported_before_work(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf(PdfPage()))
    for wrong in ({"dpi": 1}, {"max_cpu_s": 0}, {"joined": True, "content": "document"}):
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            Pdf(path=str(tmp_path), **wrong).check()


def test_words_are_found_with_full_precision_and_recall_on_many_pages(tmp_path):
    pages = []
    for number in range(8):
        page = two_columns()
        page.text(290, 770, str(number))
        pages.append(page)
    rows = rows_of(tmp_path, pdf(*pages))
    found = [Placed(label, tuple(box)) for row in rows for label, box in
             zip(row["images"][0]["box_labels"], row["images"][0]["boxes"], strict=True)]  # fmt: skip
    true = [word for page in pages for word in page.words]
    assert [word.text for word in found] == [word.text for word in true]


def test_shards_without_a_pdf_or_a_tiff_are_counted(tmp_path):
    write_tar(tmp_path / "a.tar", [("0.json", b'{"pages": []}'), ("1.pdf", pdf(two_columns()))])
    rows = read_all(Pdf(path=str(tmp_path / "a.tar"))).to_pylist()
    assert [row["reason"] for row in rows] == ["no_image", None]
