"""Text is fitted into columns by the width that a terminal shows, and counts have the singular or the plural."""

import pytest

from vlmdata.sizes import counted, noun
from vlmdata.terminal import cell, cut, filled, one_line, width


@pytest.mark.parametrize(
    ("text", "columns"),
    [("", 0), ("row", 3), ("图像", 4), ("ｆｕ", 4), ("e\u0301", 1), ("a\u200bb", 2), ("é…", 2)],
)
def test_a_wide_character_takes_two_columns_and_an_accent_none(text, columns):
    assert width(text) == columns


@pytest.mark.parametrize("text", ["a" * 60, "图" * 60, "a图" * 30, "e\u0301" * 60, "x\x1b[2Jy\n" * 12])
@pytest.mark.parametrize("columns", [0, 1, 2, 7, 28, 60])
def test_a_cell_has_exactly_its_columns(text, columns):
    assert width(cell(text, columns)) == columns and cell(text, columns).isprintable()
    assert width(cut(text, columns)) <= columns


def test_a_text_that_fits_is_not_cut():
    assert cut("图像", 4) == "图像" and cut("图像", 3) == "图…" and cut("图像", 2) == "…" and cell("图", 4) == "图  "
    assert one_line("a\x1b[2Jb\nc") == "a?[2Jb?c"


def test_pieces_fill_lines_and_a_piece_that_is_too_wide_is_cut():
    assert filled(["one", "two", "three", "x" * 20], 10) == ["  one two", "  three", "  " + "x" * 7 + "…"]
    assert filled([], 10) == []


@pytest.mark.parametrize(("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1204, "1,204 rows")])
def test_one_is_singular_and_every_other_number_plural(number, text):
    assert counted(number, "row") == text


def test_an_irregular_plural_is_given():
    assert [noun(number, "copy", "copies") for number in (1, 2)] == ["copy", "copies"]
