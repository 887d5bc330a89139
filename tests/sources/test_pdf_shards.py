"""Tars of PDFA and OCR-IDL: words and boxes come from the JSON, and what does not fit is counted."""

import io
import json

import pytest
from PIL import Image

from tests.loader.tars import write_tar
from tests.pdf.write_pdf import PdfPage, pdf
from tests.sources.reading import read_all
from vlmdata.sources.pdf import Pdf


def a_pdf(pages: int = 1) -> bytes:
    page = PdfPage()
    page.text(50, 100, "words of the text layer")
    return pdf(*[page] * pages)


def pdfa_page(words: list[str], boxes: list[list]) -> dict:
    """Return a page in the form of PDFA: one line that holds all words."""
    line = {"text": [" ".join(words)], "bbox": [[0.1, 0.1, 0.5, 0.1]], "score": [1.0], "word_slice": [[0, len(words)]]}
    found = {"text": words, "bbox": boxes, "score": [1.0] * len(words), "line_pos": [[0, n] for n in range(len(words))]}
    return {"words": found, "lines": line, "images_bbox": [[0.2, 0.5, 0.1, 0.1]], "images_bbox_no_text_overlap": []}


def rows_of(tmp_path, members: dict[str, bytes], **settings) -> list[dict]:
    path = write_tar(tmp_path / "a.tar", list(members.items()))
    return read_all(Pdf(path=str(path), **settings)).to_pylist()


def test_words_and_boxes_of_pdfa_come_from_the_json(tmp_path):
    page = pdfa_page(["two", "words"], [[0.1, 0.1, 0.2, 0.05], [0.4, 0.1, 0.2, 0.05]])
    (row,) = rows_of(tmp_path, {"0.json": json.dumps({"pages": [page]}).encode(), "0.pdf": a_pdf()})
    image = row["images"][0]
    assert row["texts"][1]["text"] == "two words" and image["box_labels"] == ["two", "words"]
    assert image["boxes"] == [[125.0, 166.7, 375.0, 250.05], [500.0, 166.7, 750.0, 250.05]]  # 1250 x 1667 pixels
    extra = json.loads(row["extra"])
    assert extra == {"source_key": "0", "page": 1, "pages": 1, "images_bbox": [[0.2, 0.5, 0.1, 0.1]]}
    assert row["place"] == "a.tar, byte 0, page 1"


def test_lines_of_idl_are_read_with_the_frames_of_its_tiff_if_there_is_no_pdf(tmp_path):
    frames = [Image.new("L", (100, 200), shade) for shade in (50, 250)]
    out = io.BytesIO()
    frames[0].save(out, "TIFF", save_all=True, append_images=frames[1:])
    lines = {
        "text": ["a line", "below"],
        "bbox": [[0.1, 0.1, 0.8, 0.1], [0.1, 0.3, 0.4, 0.1]],
        "poly": [[], []],
        "score": [99, 90],
    }
    rows = rows_of(tmp_path, {"k.json": json.dumps({"pages": [lines, lines]}).encode(), "k.tif": out.getvalue()})
    assert [row["texts"][1]["text"] for row in rows] == ["a line\nbelow"] * 2
    image = rows[1]["images"][0]
    assert Image.open(io.BytesIO(image["data"])).convert("L").getpixel((5, 5)) == 250
    assert image["boxes"] == [[10.0, 20.0, 90.0, 40.0], [10.0, 60.0, 50.0, 80.0]] and image["box_labels"] == ["a line", "below"]


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (pdfa_page(["two", "words"], [[0.1, 0.1, 0.2, 0.05]]), "2 texts and 1 boxes"),
        ({"words": {"text": [3], "bbox": [[0, 0, 1, 1]]}}, "not a string"),
        ({"words": []}, "no lists"),
        ("page", "not an object"),
    ],
)
def test_a_page_whose_lists_do_not_fit_is_dropped_with_its_problem(tmp_path, page, problem):
    (row,) = rows_of(tmp_path, {"0.json": json.dumps({"pages": [page]}).encode(), "0.pdf": a_pdf()})
    assert row["reason"] == "bad_record" and problem in row["problem"] and row["place"].endswith("page 1")


def test_boxes_outside_the_page_become_null_and_keep_their_word(tmp_path):
    wrong = [
        [0.5, 0.5, 0.9, 0.1],
        [0.1, 0.1, 0, 0.1],
        [float("nan"), 0, 1, 1],
        [1, 2, 3],
        "box",
        [10**400, 0, 1, 1],
        [-0.01, 0.0, 0.51, 0.5],
    ]
    page = pdfa_page(list("abcdefg"), wrong)
    (row,) = rows_of(tmp_path, {"0.json": json.dumps({"pages": [page]}).encode(), "0.pdf": a_pdf()})
    image = row["images"][0]
    assert image["boxes"][:6] == [None] * 6 and image["boxes"][6] == [0.0, 0.0, 625.0, 833.5]
    assert image["box_labels"] == list("abcdefg")


def test_other_numbers_of_pages_in_the_json_are_counted(tmp_path):
    page = pdfa_page(["word"], [[0.1, 0.1, 0.2, 0.05]])
    fewer = {"a.json": json.dumps({"pages": [page]}).encode(), "a.pdf": a_pdf(2)}
    more = {"b.json": json.dumps({"pages": [page] * 3}).encode(), "b.pdf": a_pdf(2)}
    rows = rows_of(tmp_path, fewer | more)
    assert [row["reason"] for row in rows] == [None, "bad_record", None, None, "no_page"]
    assert "describes 1 pages" in rows[1]["problem"] and "describes 3 pages" in rows[4]["problem"]


def test_a_sample_without_pages_in_its_json_has_the_text_layer(tmp_path):
    (row,) = rows_of(tmp_path, {"0.json": b'{"pages": []}', "0.pdf": a_pdf()})
    assert row["texts"][1]["text"] == "words of the text layer"
    rows = rows_of(tmp_path, {"0.json": b"{", "0.pdf": a_pdf()})
    assert [row["reason"] for row in rows] == ["bad_record"]


def test_a_pdf_of_a_shard_may_become_a_document(tmp_path):
    page = pdfa_page(["word"], [[0.1, 0.1, 0.2, 0.05]])
    members = {"0.json": json.dumps({"pages": [page]}).encode(), "0.pdf": a_pdf()}
    (row,) = rows_of(tmp_path, members, content="document")
    assert [text["text"] for text in row["texts"]] == ["words of the text layer"]
