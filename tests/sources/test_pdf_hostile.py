"""Hostile and broken PDFs end as counted rows, within limits of time and memory, and open nothing."""

import time
import zlib

import pytest

from tests.pdf.write_pdf import PdfPage, pdf, stream, whole
from tests.servers import LoopbackServer, reply
from tests.sources.reading import read_all
from vlmdata.sources.pdf import Pdf

GOOD = PdfPage()
GOOD.text(50, 100, "good words")


def rows_of(tmp_path, data: bytes, **settings) -> list[dict]:
    """Return the rows of one PDF, and check that a good PDF after it is read."""
    (tmp_path / "a.pdf").write_bytes(data)
    (tmp_path / "b.pdf").write_bytes(pdf(GOOD))
    rows = read_all(Pdf(path=str(tmp_path), **settings)).to_pylist()
    assert rows[-1]["drop"] is None and rows[-1]["place"].startswith("b.pdf")
    assert all(row["place"].startswith("a.pdf") for row in rows[:-1])
    return rows[:-1]


def reasons(rows: list[dict]) -> list[str | None]:
    return [row["reason"] for row in rows]


def with_content(content: bytes, pages: int = 1) -> bytes:
    """Return a PDF whose pages share one stream of operators, which is compressed."""
    kids = " ".join(f"{number} 0 R" for number in range(5, 5 + pages))
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>/Contents 4 0 R>>"
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count {pages}>>".encode()]
    objects += [b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>", stream(zlib.compress(content), "<</Filter/FlateDecode")]
    return whole([*objects, *[page] * pages])


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7", b"not a PDF at all", b"\0" * 5000, pdf(GOOD)[:300]])
def test_files_that_are_no_pdf_are_one_dropped_row(tmp_path, data):
    (row,) = rows_of(tmp_path, data)
    assert (row["drop"], row["reason"]) in (("source", "bad_pdf"), ("source", "no_pages")) and row["problem"]


def test_a_broken_table_of_objects_is_repaired(tmp_path):
    (row,) = rows_of(tmp_path, pdf(GOOD).replace(b"startxref\n", b"startxref\n9"))
    assert row["drop"] is None and row["images"][0]["box_labels"] == ["good", "words"]


def test_a_pdf_without_pages_is_dropped(tmp_path):
    data = whole([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[]/Count 0>>"])
    assert reasons(rows_of(tmp_path, data)) == ["bad_pdf"]


def test_a_tree_of_pages_that_loops_ends(tmp_path):
    data = whole([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 4>>"])
    found = reasons(rows_of(tmp_path, data))
    assert found and set(found) <= {"bad_page", "no_pages", "bad_pdf"}


def test_a_million_stated_pages_are_refused_and_the_rest_is_not_tried(tmp_path):
    data = pdf(GOOD).replace(b"/Count 1", b"/Count 1000000")
    assert reasons(rows_of(tmp_path, data)) in (["too_many_pages"], [None])
    data = pdf(GOOD).replace(b"/Count 1", b"/Count 9000")
    found = rows_of(tmp_path, data)
    assert len(found) <= 21 and found[0]["reason"] is None
    assert len(found) == 1 or "No page after" in found[-1]["problem"]


def test_pages_over_the_limit_are_refused(tmp_path):
    assert reasons(rows_of(tmp_path, pdf(GOOD, GOOD, GOOD), max_pages=2)) == ["too_many_pages"]


def test_a_page_that_takes_too_long_is_dropped_and_the_next_one_is_read(tmp_path):
    slow, first = PdfPage(), PdfPage()
    first.text(50, 50, "first")
    slow.draw("0 0 600 800 re W n " + "1 0 0 1 0 0 cm 0 0 m 300 900 700 -100 600 800 c 9 w S " * 100_000)
    started = time.process_time()
    found = rows_of(tmp_path, pdf(first, slow, GOOD), max_cpu_s=1)
    assert reasons(found) == [None, "too_costly", None] and found[1]["place"] == "a.pdf, page 2"
    assert "1 CPU second" in found[1]["problem"] and time.process_time() - started < 5


def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(tmp_path):
    page = PdfPage()
    page.text(50, 50, "words")
    page.picture((100, 100, 300, 300), bytes(10_000), (100_000, 100_000), "/ColorSpace/DeviceGray")
    (row,) = rows_of(tmp_path, pdf(page))
    assert row["reason"] == "too_many_pixels" and "100000 x 100000" in row["problem"]


def test_a_bomb_in_a_stream_stays_within_the_limit_of_memory(tmp_path):
    bomb = zlib.compress(zlib.compress(b" " * 150_000_000, 1), 9)
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R>>"
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page]
    data = whole([*objects, stream(bomb, "<</Filter[/FlateDecode/FlateDecode]")])
    (row,) = rows_of(tmp_path, data, max_memory_mb=100)
    assert row["reason"] in ("pdf_crash", "too_large", "bad_page", None)
    if row["reason"] is None:
        assert row["texts"][1]["text"] == ""


def test_a_page_with_too_much_text_is_dropped(tmp_path):
    text = b"BT /F 1 Tf 1 0 0 1 9 9 Tm " + b"(aaaaaaaaaa) Tj " * 30_000 + b"ET"
    assert reasons(rows_of(tmp_path, with_content(text))) == ["too_much_text"]


def test_odd_texts_are_read_or_left_out(tmp_path):
    page = PdfPage()
    page.text(50, 100, "seen")
    page.draw(
        "BT /F 0 Tf 50 700 Td (zero) Tj ET BT /F 10 Tf 1 1 1 rg 50 600 Td (white) Tj ET BT /F 10 Tf 9999 9 Td (far) Tj ET"
    )
    page.draw("BT /F 10 Tf 50 500 Td (a\\001b\\000c) Tj ET")
    (row,) = rows_of(tmp_path, pdf(page))
    words = row["texts"][1]["text"].split()
    assert words[:2] == ["seen", "white"] and "far" not in words  # white text is a part of the text layer
    assert all(letter.isprintable() for word in words for letter in word)
    image = row["images"][0]
    assert all(0 <= b[0] < b[2] <= image["width"] and 0 <= b[1] < b[3] <= image["height"] for b in image["boxes"])


def test_forms_that_contain_themselves_end(tmp_path):
    form = "<</Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<</XObject<</X 4 0 R>>>>"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</XObject<</X 4 0 R>>>>/Contents 4 0 R>>"
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page, stream(b"/X Do " * 3, form)]
    for content in ("pages", "document"):
        (row,) = rows_of(tmp_path, whole(objects), content=content, max_cpu_s=5, max_memory_mb=100)
        assert row["reason"] in (None, "no_text", "too_costly", "pdf_crash")


def test_scripts_actions_and_outside_files_are_neither_run_nor_opened(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\xff\0\0" * 64)
    with LoopbackServer({"/x": reply(b"secret")}) as server:
        page = PdfPage()
        page.text(50, 100, "words")
        page.picture((100, 200, 300, 400), b"", (8, 8), f"/F({secret})/FFilter/FlateDecode")
        uri, launch = f"<</S/URI/URI({server.url('/x')})>>", f"<</S/Launch/F({tmp_path}/ran)/Win<</F(touch {tmp_path}/ran)>>>>"
        page.head = f"/AA<</O {launch}/C {uri}>>/Annots[<</Type/Annot/Subtype/Link/Rect[0 0 99 99]/A {uri}>>]"
        script = f"<</S/JavaScript/JS(app.launchURL\\('{server.url('/x')}'\\))/Next {uri}>>"
        (row,) = rows_of(tmp_path, pdf(page, catalog=f"/OpenAction {script}/AcroForm<</Fields[]/XFA({server.url('/x')})>>"))
        assert server.requests == []
    assert row["drop"] is None and not (tmp_path / "ran").exists()
    assert b"\xff\0\0" * 8 not in row["images"][0]["data"]


def test_thousands_of_pages_are_read_one_after_another(tmp_path):
    (tmp_path / "a.pdf").write_bytes(with_content(b"BT /F 10 Tf 50 700 Td (page) Tj ET", 1100))
    source = Pdf(path=str(tmp_path / "a.pdf"), dpi=10)
    sizes = [len(table) for piece in source.pieces() for table in source.read(piece)]
    assert sizes == [1000, 100]


def test_the_process_ends_if_the_reader_stops_early(tmp_path):
    from vlmdata.pdf.process import PdfOptions, PdfProcess

    options = PdfOptions("pages", "words", 72, 500, "png", 9999, 500, 10)
    with PdfProcess() as process:
        pages = process.pages(with_content(b"", 500), options)
        assert next(pages)[0] == {"pages": 500} and next(pages)[0]["page"] == 1
        pages.close()
        again = [head for head, _ in process.pages(pdf(GOOD), options)]
        assert again[0] == {"pages": 1} and again[1]["text"] == "good words"


def test_a_page_whose_crop_box_lies_outside_is_dropped_with_a_clear_problem(tmp_path):
    (row,) = rows_of(tmp_path, pdf(PdfPage(head="/CropBox[5000 5000 6000 6000]")))
    assert (row["reason"], "no part of the page is visible" in row["problem"]) == ("bad_page", True)
