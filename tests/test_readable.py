"""Values of the ledger are written as people write them."""

import numpy as np
import pytest

from vlmdata.readable import is_empty, number, text, visible


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.19699999690055847, "0.197"),
        (float(np.float32(0.26)), "0.26"),
        (16.0, "16"),
        (1234567.0, "1234567"),
        (1234567.891, "1234568"),
        (123456.789, "123457"),
        (0.0, "0"),
        (-0.5, "-0.5"),
        (0.00001234, "1.234e-05"),
        (1e20, "1e+20"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_a_number_has_no_rounding_noise(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([None, 0.19699999690055847, None], "0.197"),
        ([0.1, 0.25], "0.1, 0.25"),
        ([0.5] * 512, "0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, … (512 values)"),
        ([[0.1, 0.2], None], "(0.1, 0.2)"),
        ([], "(empty)"),
        ({"a": 1, "b": None, "c": [True]}, "a 1, c yes"),
        (2**64 - 1, "18446744073709551615"),
        ("two\nlines\x1b[31m", "two lines [31m"),
        ("x" * 101, "x" * 99 + "…"),
        (["x" * 90, "y" * 90], "x" * 90 + ", … (2 values)"),
        (b"\xff\x00", "ff00"),
    ],
)
def test_a_value_is_one_short_line_without_nulls(value, expected):
    assert text(value) == expected


def test_a_text_of_many_blanks_ends_with_a_mark():
    assert visible(" " * 1000 + "word") == "…" and visible("a\u202eb") == "a b"


def test_a_list_of_nulls_is_empty_and_counts_agree_with_their_nouns():
    assert [is_empty(value) for value in (None, [None, None], [], [0], 0, "")] == [True, True, True, False, False, False]
