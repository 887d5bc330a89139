"""Text and figures of PDFs become one document in the order that their author meant."""

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pdf.write_pdf import PdfPage, pdf
from tests.sources.reading import read_all
from vlmdata.sources.pdf import Pdf

PROSE = "the quick brown foxes of this long paragraph jump over all of the lazy dogs that sleep near a river"


def colour(red: int, green: int, blue: int) -> bytes:
    return bytes((red, green, blue)) * 400


def document_of(tmp_path, *pages: PdfPage, **settings) -> dict:
    (tmp_path / "a.pdf").write_bytes(pdf(*pages))
    (row,) = read_all(Pdf(path=str(tmp_path / "a.pdf"), content="document", **settings)).to_pylist()
    return row


def order(row: dict) -> list[str]:
    """Return the texts of a document, with the middle pixel's colour in place of a figure."""
    found = []
    for image, text in zip(row["images"], row["texts"], strict=True):
        found.append(text["text"] if text else str(middle(image["data"])))
    return found


def middle(data: bytes) -> tuple[int, int, int]:
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    return tuple(int(one) for one in pixels[pixels.shape[0] // 2, pixels.shape[1] // 2])


def paragraphs(page: PdfPage, x: float, y: float, names: list[str], width: float = 230) -> float:
    for name in names:
        y = page.paragraph(x, y, f"{name} {PROSE} {PROSE}.", width) + 10
    return y


def test_columns_are_read_one_after_the_other_with_their_figures(tmp_path):
    page = PdfPage()
    page.text(50, 60, "A title that crosses both of the columns here", 18)
    y = paragraphs(page, 50, 100, ["One", "Two"])
    page.picture((50, y, 280, y + 120), colour(255, 0, 0), (20, 20))
    paragraphs(page, 50, y + 140, ["Three", "Four"])
    y = paragraphs(page, 320, 100, ["Five"])
    page.picture((320, y, 550, y + 90), colour(0, 0, 255), (20, 20))
    page.text(320, y + 104, "Figure 1. A blue square")
    paragraphs(page, 320, y + 134, ["Six", "Seven", "Eight"])
    row = document_of(tmp_path, page)
    firsts = [text.split(" ")[0] for text in order(row)]
    assert firsts == ["A", "One", "Two", "(255,", "Three", "Four", "Five", "(0,", "Figure", "Six", "Seven", "Eight"]
    captions = [image["caption"] for image in row["images"] if image]
    assert captions == [None, "Figure 1. A blue square"]
    assert all(text.endswith(f"{PROSE}.") for text in order(row)[1:3])


def test_three_columns_and_full_width_parts_between_them_are_in_order(tmp_path):
    page = PdfPage()
    names = iter("abcdefghi")
    for top, columns in ((80, 3), (330, 1), (420, 3)):
        width = (500 - 20 * (columns - 1)) / columns
        for column in range(columns):
            page.paragraph(50 + column * (width + 20), top, f"{next(names)} {PROSE} {PROSE} {PROSE}.", width)
    assert [text[0] for text in order(document_of(tmp_path, page))] == list("abcdefg")


def test_a_sentence_continues_over_columns_pages_and_figures(tmp_path):
    first, second = PdfPage(), PdfPage()
    first.paragraph(50, 100, f"One {PROSE} {PROSE} and then the", 500)
    first.picture((50, 400, 200, 500), colour(0, 255, 0), (20, 20))
    second.paragraph(50, 100, f"sentence goes on {PROSE}.", 500)
    second.paragraph(50, 200, f"Two {PROSE}.", 500)
    found = order(document_of(tmp_path, first, second))
    assert found == [f"One {PROSE} {PROSE} and then the sentence goes on {PROSE}.", "(0, 255, 0)", f"Two {PROSE}."]


def test_running_heads_and_page_numbers_are_left_out(tmp_path):
    pages = []
    for number in range(1, 7):
        page = PdfPage()
        page.text(50, 40, "The Journal of Tests, page " + str(number))
        page.text(290, 775, str(number))
        page.paragraph(50, 100, f"Part {number} {PROSE}.", 500)
        pages.append(page)
    assert order(document_of(tmp_path, *pages)) == [f"Part {number} {PROSE}." for number in range(1, 7)]


def test_divided_words_are_joined_and_hyphens_of_words_are_kept(tmp_path):
    page = PdfPage()
    lines = [
        "The well-known rule is that a divi-",
        "ded word is joined, and that a well-",
        "known one keeps its hyphen in 1990-",
        "2000.",
    ]
    for number, line in enumerate(lines):
        page.text(50, 100 + 12 * number, line)
    (text,) = order(document_of(tmp_path, page))
    assert (
        text == "The well-known rule is that a divided word is joined, and that a well-known one keeps its hyphen in 1990-2000."
    )


def test_strips_of_one_picture_are_one_figure(tmp_path):
    page = PdfPage()
    page.paragraph(50, 60, f"Above {PROSE}.", 500)
    for strip in range(5):
        page.picture((100, 200 + 20 * strip, 300, 220 + 20 * strip), colour(40 * strip, 0, 0), (20, 20))
    row = document_of(tmp_path, page)
    (image,) = [image for image in row["images"] if image]
    assert abs(image["width"] / image["height"] - 2) < 0.1 and middle(image["data"]) == (80, 0, 0)


def test_a_drawing_is_a_figure_with_its_labels_and_a_ruled_table_is_text(tmp_path):
    page = PdfPage()
    page.paragraph(50, 60, f"Above {PROSE}.", 500)
    bars = "".join(f"{120 + 40 * n} 500 20 {30 + 20 * n} re f " for n in range(5))
    page.draw(f"0 0 1 rg {bars} 0 g 100 500 m 350 500 l S 100 500 m 100 640 l S")
    page.text(120, 312, "year")
    page.text(85, 200, "sum")
    page.text(100, 345, "Fig. 2: Bars that grow")
    for line in range(6):
        page.draw(f"100 {300 - 15 * line} 300 12 re S")
        page.text(102, 498 + 15 * line, "cells of a table that has many words in it, as tables do")
    row = document_of(tmp_path, page)
    images = [image for image in row["images"] if image]
    texts = [text["text"] for text in row["texts"] if text]
    assert [image["caption"] for image in images] == ["Fig. 2: Bars that grow"]
    assert "year" not in " ".join(texts) and " ".join(texts).count("cells of a table") == 6


def test_cmyk_and_masked_pictures_have_the_colours_that_the_page_shows(tmp_path):
    page = PdfPage()
    page.paragraph(50, 60, f"Above {PROSE}.", 500)
    page.picture(
        (100, 200, 200, 300), bytes((0, 255, 255, 255)) * 400, (20, 20), "/ColorSpace/DeviceCMYK/Decode[1 0 1 0 1 0 1 0]"
    )
    page.picture((100, 400, 200, 500), colour(0, 0, 255), (20, 20), "/ColorSpace/DeviceRGB/Mask[0 0 0 0 255 255]")
    row = document_of(tmp_path, page)
    inverted, masked = [middle(image["data"]) for image in row["images"] if image]
    assert inverted[0] < 60 and min(inverted[1:]) > 120  # cyan
    assert masked == (255, 255, 255)


def test_a_figure_keeps_the_resolution_of_its_raster_image(tmp_path):
    page = PdfPage()
    page.paragraph(50, 60, f"Above {PROSE}.", 500)
    page.picture((100, 200, 300, 300), bytes(3 * 800 * 400), (800, 400))
    (image,) = [image for image in document_of(tmp_path, page)["images"] if image]
    assert abs(image["width"] - 800) < 12 and abs(image["height"] - 400) < 12


def test_small_pictures_and_backgrounds_are_no_figures(tmp_path):
    page = PdfPage()
    page.picture((0, 0, 600, 800), colour(240, 240, 240), (20, 20))
    page.picture((50, 100, 60, 110), colour(0, 0, 0), (20, 20))
    page.paragraph(70, 108, PROSE, 400)
    assert order(document_of(tmp_path, page)) == [PROSE]


@pytest.mark.parametrize("reason", ["no_text", "unclear_layout"])
def test_pdfs_whose_layout_does_not_tell_are_dropped_with_the_reason(tmp_path, reason):
    page = PdfPage()
    if reason == "no_text":
        page.picture((0, 0, 600, 800), colour(9, 9, 9), (20, 20))
    else:
        paragraphs(page, 50, 100, ["one", "two"], 400)
        paragraphs(page, 90, 101, ["three", "four"], 400)
    row = document_of(tmp_path, page)
    assert (row["drop"], row["reason"]) == ("source", reason) and "content: pages" in row["problem"]


def random_page(seed: int) -> tuple[PdfPage, list[str]]:
    """Return a page of one to three columns under a title, and its texts' first words and its figures in order."""
    draw = random.Random(seed)
    page, truth = PdfPage(), []
    top = 60.0
    if draw.random() < 0.7:
        page.text(50, top, "T0 title of a page that is as wide as a title is", 18)
        truth.append("T0")
        top += 40
    columns = draw.choice((1, 2, 2, 3))
    width = (500 - 20 * (columns - 1)) / columns
    for column in range(columns):
        x, y = 50 + column * (width + 20), top
        while y < 600:
            name = f"P{len(truth)}"
            if truth and draw.random() < 0.25:
                height = draw.randrange(50, 110)
                page.picture((x, y, x + 0.9 * width, y + height), colour(len(truth), 0, 200), (20, 20))
                truth.append(f"({len(truth)},")
                y += height + 24
                continue
            size = draw.choice((9, 10, 10, 10))
            y = page.paragraph(x, y, f"{name} {PROSE} {PROSE}."[: draw.randrange(60, 180)] + ".", width, size) + draw.choice(
                (6, 12)
            )
            truth.append(name)
    return page, truth


def test_random_pages_of_one_to_three_columns_are_in_the_true_order(tmp_path):
    made = [random_page(seed) for seed in range(40)]
    folder = tmp_path / "many"
    folder.mkdir()
    for seed, (page, _) in enumerate(made):
        (folder / f"{seed:02}.pdf").write_bytes(pdf(page))
    rows = read_all(Pdf(path=str(folder), content="document")).to_pylist()
    found = [[text.split(" ")[0] for text in order(row)] for row in rows]
    right = [seed for seed, (_, truth) in enumerate(made) if found[seed] == truth]
    assert right == list(range(40)), [(seed, made[seed][1], found[seed]) for seed in range(40) if seed not in right][:3]


@pytest.mark.parametrize("text", ["a" * 200_000, "1" + "-" * 190_000 + "x", "a" * 100_000 + "-", "1" + " |" * 90_000 + "x"])
def test_the_time_to_join_hostile_lines_grows_with_their_length(tmp_path, text):
    """A pattern that tries each pair of places would take minutes, so the process ends at its limit of CPU time."""
    lines = [{"text": text, "box": [0, 0, 99, 9], "divided": False}, {"text": "b", "box": [0, 10, 99, 19], "divided": False}]
    page = {"page": 1, "height": 800.0, "blocks": [{"box": [0, 0, 99, 19], "lines": lines, "size": 9.0}]}
    (path := tmp_path / "page.json").write_text(json.dumps(page))
    code = (
        "import json, resource; from pathlib import Path; from vlmdata.pdf.document import parts_of\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, (30, 30)); page = json.loads(Path({str(path)!r}).read_text())\n"
        "print(len(parts_of([(page, [])])))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (ended.returncode, ended.stdout) == (0, "1\n")


def test_a_plot_of_twenty_thousand_points_is_one_figure_within_the_limit_of_time(tmp_path):
    page, points = PdfPage(), random.Random(1)
    page.text(50, 40, "A page with a plot")
    for _ in range(20_000):
        x, y = 100 + 400 * points.random(), 300 + 300 * points.random()
        page.draw(f"{x:.1f} {y:.1f} m {x + 1:.1f} {y + 2:.1f} {x + 2:.1f} {y + 2:.1f} {x + 3:.1f} {y:.1f} c S")
    row = document_of(tmp_path, page, max_cpu_s=10)
    assert [bool(image) for image in row["images"]] == [False, True]


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_long_lists_and_tables_are_read_within_the_usual_limit_of_time(tmp_path, cells):
    page = PdfPage(300, 20 + 600 * 12)
    for number in range(600):
        for cell in range(cells):
            page.text(20 + 90 * cell, 20 + number * 12, f"{'abc'[cell]}{number}")
    row = document_of(tmp_path, page, max_cpu_s=10)
    words = " ".join(text["text"] for text in row["texts"]).split()
    assert words == [f"{'abc'[cell]}{number}" for number in range(600) for cell in range(cells)]
