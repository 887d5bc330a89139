"""Flattened list columns of rows are computed on correctly."""

import numpy as np
import pyarrow as pa

from tests.rows import document, table
from vlmdata.row import aligned_items, flatten, set_column
from vlmdata.similarity.verdict import drop_duplicate_images, living_images

ROWS = [["a"], [{"url": "1"}, "b", {"url": "2"}], [], [{"url": "3"}, {"url": "4"}]]


def test_the_first_chosen_position_of_each_row_is_found():
    flat = flatten(table([document(*parts) for parts in ROWS]), "images")
    assert flat.first(flat.items.is_valid().to_numpy(zero_copy_only=False)).tolist() == [-1, 1, -1, 4]
    urls = np.array(flat.field("url").to_pylist(), object)
    assert flat.first((urls == "2") | (urls == "4")).tolist() == [-1, 3, -1, 5]
    assert flat.first(np.zeros(len(urls), bool)).tolist() == [-1] * 4


def test_a_row_that_loses_all_images_names_the_row_that_keeps_the_first_one():
    rows = table([document(*parts) for parts in ROWS])
    found = living_images(rows, ())
    stands = np.array([0, 1, 1, 0])  # both images of the last row are copies
    decided = drop_duplicate_images(rows, found, stands, "dedupe", "same_picture")
    assert decided["drop"].to_pylist() == [None, None, None, "dedupe"]
    assert decided["cluster"].to_pylist() == [None, None, None, rows["key"][1].as_py()]


def test_rows_without_images_are_not_dropped():
    rows = table([document(), document()])
    none = np.zeros(0, np.int64)
    decided = drop_duplicate_images(rows, living_images(rows, ()), none, "dedupe", "same_picture")
    assert decided["drop"].to_pylist() == decided["cluster"].to_pylist() == [None, None]


def test_values_of_a_row_that_was_not_measured_are_missing_at_all_its_positions():
    rows = table([document(*parts) for parts in ROWS])
    measured = pa.array([None, ["x", None, "y"], [], ["too short"]], pa.list_(pa.string()))
    values = aligned_items(set_column(rows, "step.text", measured), "step.text", "images")
    assert values.to_pylist() == [None, "x", None, "y", None, None]
